import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from suite.datasets import located_or_expected
from suite.estimate.cost import CellCost, Estimate, Teller, estimate
from suite.estimate.rates import Rates, Subject
from suite.estimate.work import Guess, Work
from suite.network import model_spec
from suite.plan import Cell
from suite.planner import make_plan
from suite.store import CellId
from suite.study import Task, read_study


def cost(name: str, seconds: float, *inputs: str) -> CellCost:
    cell = Cell(CellId("dense", name), {}, {each: CellId("dense", each) for each in inputs}, f"tiny {name}", 1)
    return CellCost(cell, "tiny", name, Work(), Guess.exactly(seconds), Guess.exactly(0), None, 0.0)


def likely(each: CellCost) -> float:
    return each.seconds.likely


#  a(1) -> b(5) -> d(1)
#  a(1) -> c(2) -> d(1), e(4) alone
DIAMOND = Estimate(
    (cost("a", 1), cost("b", 5, "a"), cost("c", 2, "a"), cost("d", 1, "b", "c"), cost("e", 4)), 0, {}, "cpu"
)


def test_the_longest_chain_by_hand() -> None:
    assert [each.label for each in DIAMOND.longest_chain(likely)] == ["a", "b", "d"]
    assert Estimate((), 0, {}, "cpu").longest_chain(likely) == []


@pytest.mark.parametrize(("workers", "wall_s"), [(1, 13), (2, 7), (3, 7), (100, 7)])
def test_workers_by_hand(workers: int, wall_s: float) -> None:
    assert DIAMOND.wall_s(workers, likely) == wall_s


def test_a_committed_input_is_not_waited_for() -> None:
    rest = Estimate((cost("b", 5, "a"), cost("d", 1, "b", "c")), 2, {}, "cpu")
    assert rest.wall_s(8, likely) == 6


def test_progress_counts_networks_and_foresees_the_rest_from_their_pace() -> None:
    told, now = [], [100.0]
    teller = Teller(lambda fraction, text: told.append((fraction, text)), 4, clock=lambda: now[0])
    teller.stands("a", "first")
    teller.tell("evaluations")
    now[0] += 30
    teller.stands("b", "second")
    teller.tell("evaluations")  # 30 s for one of four
    now[0] += 10
    teller.stands("b", "second, with another recipe")
    teller.tell("steps of 8 examples")
    now[0] += 1000
    teller.tell("memory of a training")  # takes longer than the pace foresaw
    teller.stands("c", "third")
    teller.tell("evaluations")
    assert told == [
        (0.0, "network 1 of 4, first: evaluations"),
        (0.25, "network 2 of 4, second: evaluations, about 1.5 min left"),
        (0.25, "network 2 of 4, second, with another recipe: steps of 8 examples, about 1.3 min left"),
        (0.25, "network 2 of 4, second, with another recipe: memory of a training"),
        (0.5, "network 3 of 4, third: evaluations, about 17 min left"),
    ]


def test_an_estimate_counts_each_network_once(write_tiny_study: Callable[[Path], Path], tmp_path: Path) -> None:
    study, told = write_tiny_study(tmp_path), []
    task = (study.parent / "task.toml").read_text()
    (study.parent / "other.toml").write_text(task.replace('"tiny"', '"other"'))
    names = [str(study.parent / f"{name}.toml") for name in ("task", "other")]
    plan = make_plan(*read_study(str(study), [f"tasks={names}", "analyses=[]"]), find)
    assert list(plan.tasks) == ["tiny", "other"]
    estimate(plan, find, lambda _: False, "cpu", budget_s=0.1, advance=lambda *said: told.append(said[1]))
    assert {text.partition(",")[0] for text in told} == {"network 1 of 1"}


@pytest.fixture(scope="module")
def tiny(write_tiny_study: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Estimate:
    study = write_tiny_study(tmp_path_factory.mktemp("study"))
    plan = make_plan(*read_study(str(study)), find)
    return estimate(plan, find, lambda _: False, "cpu", budget_s=60.0)


def find(task: Task) -> "object":
    return located_or_expected(task.data)


def total(found: Estimate, label: str) -> tuple[int, float, float]:
    costs = [each for each in found.costs if each.label == label]
    steps = Guess.total(each.work.gradient_steps for each in costs)
    return len(costs), Guess.total(each.work.num_trainings for each in costs).likely, steps.likely


def test_the_tiny_study_by_hand(tiny: Estimate) -> None:
    # 160 examples in batches of 32 for 3 epochs: 15 steps. Plain, LOMP's and Rare Gems' recipes, and a rewinding point
    # at step 3.
    assert total(tiny, "dense") == (4 + 1, 4, 3 * 15 + 3)
    assert total(tiny, "lomp") == (2 + 2, 2, 2 * 15)  # as it is, and fine-tuned
    assert total(tiny, "random") == total(tiny, "smart_ratio") == (2, 2, 2 * 15)
    assert total(tiny, "imp") == (4, 4, 4 * 12)  # keeping 43 and then 36; 43, 25 and then 18
    assert total(tiny, "rare_gems") == (2, 4, 4 * 15)
    assert total(tiny, "limit") == (1, 47, 47 * 5)


def test_operations_by_hand(tiny: Estimate) -> None:
    forward = 2 * (6 * 8 + 8 * 3)
    random = next(each for each in tiny.costs if each.label == "random")
    evaluated = 3 * 90 + 250
    assert random.flops.likely == forward * (3 * 15 * 32 + evaluated)
    spectrum = next(each for each in tiny.costs if each.label == "spectrum")
    assert spectrum.flops.likely == forward * 6 * 160 * 4 * 72


def test_time_is_linear_in_what_was_measured(tiny: Estimate) -> None:
    rates = tiny.rates["tiny"]
    random = next(each for each in tiny.costs if each.label == "random")
    (step,) = rates.steps.values()
    assert rates.evaluation is not None
    computing = 15 * 32 * step.per_example_s + (3 * 90 + 250) * rates.evaluation.per_example_s
    assert random.seconds.likely == pytest.approx(random.begin_s + computing)


def test_everything_is_measured_once_for_all_recipes_of_a_batch_size(tiny: Estimate) -> None:
    rates = tiny.rates["tiny"]
    assert len(rates.steps) == 1
    assert set(rates.products) == {"float64"}
    assert all(each.memory is not None for each in tiny.costs)


def test_totals_are_sums(tiny: Estimate) -> None:
    assert tiny.seconds.likely == pytest.approx(math.fsum(each.seconds.likely for each in tiny.costs))
    assert tiny.disk_bytes == sum(each.work.disk_bytes for each in tiny.costs)
    assert tiny.seconds.low < tiny.seconds.likely < tiny.seconds.high


def test_sizes_and_operations_are_counted_without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPALIER_DATA", str(tmp_path / "none"))
    located = located_or_expected("digits")
    rates = Rates(Subject(model_spec("resnet20", {}, (3, 32, 32), 10), located, 1), "cpu", 1.0, print)
    model_numbers = sum(value.numel() for value in torch.nn.Module.state_dict(_built(rates)).values())
    assert rates.sizes.num_state == model_numbers
    assert 7.5e7 < rates.forward_flops < 9e7  # 41 million multiply-adds: He et al. (2016)
    assert not (tmp_path / "none").exists()


def _built(rates: Rates) -> torch.nn.Module:
    from suite.network import build_model

    return build_model(rates.subject.spec)


def test_processes_that_share_batches_are_counted_by_hand(
    write_tiny_study: Callable[[Path], Path], tmp_path: Path
) -> None:
    words = ("training.data_parallel=3", 'methods=["random"]', "sparsities=[0.5]", "analyses=[]", "options={}")
    plan = make_plan(*read_study(str(write_tiny_study(tmp_path)), words), find)
    found = estimate(plan, find, lambda _: False, "cpu", budget_s=60.0)
    random = next(each for each in found.costs if each.label == "random")
    rates = found.rates["tiny"]
    (step,) = rates.steps.values()
    assert step.wanted == 11  # the largest of the shares of 32 examples
    assert rates.evaluation is not None
    evaluated = 3 * 90 + 250  # by each process
    computing = 15 * 11 * step.per_example_s + evaluated * rates.evaluation.per_example_s
    assert random.seconds.likely == pytest.approx(random.begin_s + computing)
    assert random.flops.likely == 2 * (6 * 8 + 8 * 3) * (3 * 15 * 32 + 3 * evaluated)
    assert found.device_seconds.likely == pytest.approx(3 * found.seconds.likely)
