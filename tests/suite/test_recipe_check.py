"""What a recipe asks for and would not get: refused, or told in one line."""

import logging
from pathlib import Path

import pytest

from suite.errors import UserError
from suite.extensions import available
from suite.smoke import smoke
from suite.study import Recipe, Task, read_study

STEPPED = ("training.schedule=step", "training.milestones=[2, 4, 6]", "training.epochs=6")


def told(caplog: pytest.LogCaptureFixture, study: Path, *overrides: str) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        read_study(str(study), overrides)
    return [record.getMessage() for record in caplog.records]


def test_micro_batches_are_no_larger_than_what_a_process_has_of_a_batch(tiny_study: Path) -> None:
    read_study(str(tiny_study), ["training.batch_size=32", "training.micro_batch_size=32"])
    read_study(str(tiny_study), ["training.batch_size=32", "training.micro_batch_size=11", "training.data_parallel=3"])
    for shared, most in (((), 32), (("training.data_parallel=3",), 11)):
        with pytest.raises(UserError) as error:
            read_study(str(tiny_study), ["training.batch_size=32", f"training.micro_batch_size={most + 1}", *shared])
        assert f"micro_batch_size = {most + 1} with batch_size = 32" in str(error.value)
        assert f"Expected: at most {most} examples" in str(error.value)
        assert "\n" not in str(error.value)


def test_a_method_s_own_recipe_is_checked_as_well(tiny_study: Path) -> None:
    with pytest.raises(UserError, match=r"task tiny, recipes\.lomp: micro_batch_size = 99"):
        read_study(str(tiny_study), ["recipes.lomp.micro_batch_size=99"])


def test_milestones_behind_the_end_are_told(tiny_study: Path, caplog: pytest.LogCaptureFixture) -> None:
    (line,) = told(caplog, tiny_study, *STEPPED)
    assert line.startswith("task tiny, training")
    assert "does not fall at milestones = [6], for the training ends after epochs = 6" in line
    assert "\n" not in line
    assert told(caplog, tiny_study, *STEPPED[:2], "training.epochs=7") == []


def test_recipes_that_inherit_say_it_once(tiny_study: Path, caplog: pytest.LogCaptureFixture) -> None:
    (line,) = told(caplog, tiny_study, *STEPPED, "recipes.lomp.l1=0.1", "recipes.imp.momentum=0.5")
    assert "training and " in line
    assert "recipes.lomp" in line
    assert "recipes.imp" in line
    (line,) = told(caplog, tiny_study, *STEPPED[:2], "training.epochs=9", "recipes.lomp.epochs=5")
    assert line.startswith("task tiny, recipes.lomp: the rate does not fall at milestones = [6]")


def test_a_warm_up_that_never_ends_is_told(tiny_study: Path, caplog: pytest.LogCaptureFixture) -> None:
    (line,) = told(caplog, tiny_study, "training.warmup_epochs=5", "training.epochs=5")
    assert "warmup_epochs = 5 with epochs = 5" in line
    assert told(caplog, tiny_study, "training.warmup_epochs=4", "training.epochs=5") == []


@pytest.mark.parametrize("name", available("suite.studies", ".toml"))
def test_no_study_of_ours_has_anything_to_tell(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read_study(name)
    assert caplog.records == []


def test_a_record_from_before_the_rule_can_be_read() -> None:
    kept = Recipe(epochs=2, batch_size=4, learning_rate=0.1, micro_batch_size=9)
    assert Recipe.model_validate(kept.model_dump()).micro_batch_size == 9


def test_a_smoke_keeps_micro_batches_within_its_small_batches(tiny_study: Path) -> None:
    large = ["training.batch_size=4096", "training.micro_batch_size=1024"]
    study, tasks = read_study(str(tiny_study), large)
    task: Task = smoke(study, tasks).tasks["tiny"]
    assert task.training.micro_batch_size == task.training.batch_size == 32
    plain = smoke(*read_study(str(tiny_study))).tasks["tiny"].training
    assert plain.micro_batch_size is None
