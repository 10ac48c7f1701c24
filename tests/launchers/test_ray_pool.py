import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launchers import inline, ray_pool
from launchers._events import Advanced, Finished, Started
from launchers.ray_pool import gpu_share
from suite.errors import UserError
from suite.extensions import available
from suite.plan import Plan
from suite.planner import make_plan
from suite.progress import standings
from suite.store import Store
from suite.study import read_study

pytest.importorskip("ray")
TINY = ('methods=["lomp"]', "sparsities=[0.8]", "seeds=[0]", "analyses=[]", "training.epochs=1")
Science = Callable[[Path], dict[str, Any]]
# A user's network whose builder kills its process as long as there is a token to take.
MORTAL_MODEL = """
import os, signal
from pathlib import Path
from torch import nn

def build():
    for token in Path(__file__).parent.glob("token-*"):
        try:
            token.unlink()
        except FileNotFoundError:  # another process of the cell has taken it
            continue
        os.kill(os.getpid(), signal.SIGKILL)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Plan]]:
    """Write a network's module into tmp_path, which Ray's workers find as well, and plan a study of one epoch of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    modules = []

    def plan(module: str, source: str, *settings: str) -> Plan:
        (tmp_path / f"{module}.py").write_text(source)
        modules.append(module)
        common = ("sparsities=[0.5]", "analyses=[]", "training.epochs=1", "model_options={}")
        return make_plan(*read_study("quickstart", (*common, f'model="{module}:build"', *settings)))

    yield plan
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def mortal_plan(planned: Callable[..., Plan], request: pytest.FixtureRequest) -> Plan:
    """One dense cell and three that need it, on a network that may kill its worker; planned before there are tokens."""
    return planned("mortal_network", MORTAL_MODEL, 'methods=["lomp"]', "seeds=[0]", *getattr(request, "param", ()))


@pytest.mark.slow
def test_two_workers_give_the_records_of_a_for_loop(
    small_plan: Plan, inline_run: Any, run_with: Callable[..., Any], science: Science, tmp_path: Path
) -> None:
    run = run_with(ray_pool, small_plan, tmp_path, workers=2)
    assert [outcome.cell for outcome in run.outcomes] == [cell.id for cell in small_plan.cells]
    assert {(outcome.status, outcome.attempts) for outcome in run.outcomes} == {("done", 1)}
    ours, wanted = science(tmp_path), science(inline_run.folder)
    assert {name for name in ours if "/" not in name} == {cell.id.name for cell in small_plan.cells}
    assert [name for name in wanted if ours.get(name) != wanted[name]] == []
    assert ours.keys() == wanted.keys()
    started = [event.cell.id for event in run.events if isinstance(event, Started)]
    assert sorted(cell.key for cell in started) == sorted(cell.id.key for cell in small_plan.cells)
    advanced = [event for event in run.events if isinstance(event, Advanced)]
    assert advanced
    assert all(0 <= event.fraction <= 1 and event.text for event in advanced)


def test_what_is_there_needs_no_ray(
    tiny_plan: Plan, run_with: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_with(inline, tiny_plan, tmp_path)
    monkeypatch.setattr(ray_pool, "ray_session", None)
    again = run_with(ray_pool, tiny_plan, tmp_path, workers=2)
    assert {outcome.status for outcome in again.outcomes} == {"cached"}
    assert [type(event) for event in again.events] == [Finished] * len(tiny_plan.cells)


@pytest.mark.slow
def test_a_cell_whose_worker_dies_is_tried_again(
    mortal_plan: Plan, run_with: Callable[..., Any], science: Science, tmp_path: Path
) -> None:
    run_with(inline, mortal_plan, tmp_path / "inline")
    (tmp_path / "token-0").touch()
    run = run_with(ray_pool, mortal_plan, tmp_path / "ray", workers=1)
    assert {outcome.status for outcome in run.outcomes} == {"done"}
    assert sorted(outcome.attempts for outcome in run.outcomes) == [1] * (len(run.outcomes) - 1) + [2]
    assert science(tmp_path / "ray") == science(tmp_path / "inline")


@pytest.mark.slow
def test_a_cell_that_always_kills_its_worker_fails_after_its_tries(
    mortal_plan: Plan, run_with: Callable[..., Any], tmp_path: Path
) -> None:
    for index in range(20):
        (tmp_path / f"token-{index}").touch()
    run = run_with(ray_pool, mortal_plan, tmp_path / "ray", workers=1)
    outcomes = {outcome.cell: outcome for outcome in run.outcomes}
    first, *others = (outcomes[cell.id] for cell in mortal_plan.cells)
    assert (first.status, first.attempts) == ("failed", ray_pool.MAX_ATTEMPTS)
    assert first.message.startswith("its worker died 3 times")
    assert {outcome.status for outcome in others} == {"upstream_failed"}
    assert len(list(tmp_path.glob("token-*"))) == 20 - ray_pool.MAX_ATTEMPTS
    assert not list((tmp_path / "ray" / "cells").glob("*.h5"))  # a worker that died may leave its claim
    (standing, *_) = standings(mortal_plan, Store(tmp_path / "ray"))
    assert (standing.state, standing.message) == ("failed", first.message)


@pytest.mark.slow
@pytest.mark.parametrize("mortal_plan", [("training.data_parallel=2",)], indirect=True)
def test_a_cell_that_loses_one_of_its_processes_is_tried_again(
    mortal_plan: Plan, run_with: Callable[..., Any], science: Science, tmp_path: Path
) -> None:
    run_with(inline, mortal_plan, tmp_path / "inline")
    (tmp_path / "token-0").touch()
    run = run_with(ray_pool, mortal_plan, tmp_path / "ray", workers=1)
    assert [(outcome.status, outcome.message) for outcome in run.outcomes] == [("done", "")] * len(run.outcomes)
    assert sorted(outcome.attempts for outcome in run.outcomes) == [1] * (len(run.outcomes) - 1) + [2]
    assert science(tmp_path / "ray") == science(tmp_path / "inline")
    assert not list((tmp_path / "ray" / "logs").rglob("*.log"))
    for index in range(20):
        (tmp_path / f"token-{index}").touch()
    run = run_with(ray_pool, mortal_plan, tmp_path / "lost", workers=1)
    first = next(outcome for outcome in run.outcomes if outcome.status == "failed")
    assert first.attempts == ray_pool.MAX_ATTEMPTS
    assert "of 2 of this cell was ended by signal 9 (SIGKILL)" in first.message


@pytest.mark.slow
def test_cells_of_several_processes_give_the_records_of_a_for_loop(
    run_with: Callable[..., Any], science: Science, tmp_path: Path, data_folder: Path
) -> None:
    plan = make_plan(*read_study("quickstart", [*TINY, "training.data_parallel=2"]))
    # LOMP without fine-tuning trains nothing
    assert sorted(cell.processes for cell in plan.cells) == [1] + [2] * (len(plan.cells) - 1)
    run_with(inline, plan, tmp_path / "inline")
    run = run_with(ray_pool, plan, tmp_path / "ray", workers=1)
    assert [(outcome.status, outcome.message) for outcome in run.outcomes] == [("done", "")] * len(plan.cells)
    assert science(tmp_path / "ray") == science(tmp_path / "inline")


def test_more_gpus_than_there_are_is_refused_before_ray(
    run_with: Callable[..., Any], tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_pool, "ray_session", None)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("suite.ranks.best_device", lambda: "cuda")
    plan = make_plan(*read_study("quickstart", [*TINY, "training.data_parallel=2"]))
    with pytest.raises(UserError, match=r"training\.data_parallel = 2, but GPUs here: 1\. Expected: one for each"):
        run_with(ray_pool, plan, tmp_path)


def test_the_environment_is_as_before(small_plan: Plan) -> None:
    assert not {name for name in os.environ if name.startswith("RAY_AUTH")}


# A user's network that is built once three processes have begun to build it.
MEETING_MODEL = """
import os, time
from pathlib import Path
from torch import nn

def build():
    here = Path(__file__).parent
    if (here / "meet").exists():
        (here / f"here-{os.getpid()}").touch()
        end = time.monotonic() + 90
        while len(list(here.glob("here-*"))) < 3:
            assert time.monotonic() < end, "the others did not come"
            time.sleep(0.05)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


# A user's network that leaves the number of each process that builds it.
SIGNING_MODEL = """
import os
from pathlib import Path
from torch import nn

def build():
    with (Path(__file__).parent / "signed").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.mark.slow
def test_where_there_are_gpus_each_cell_has_a_process_of_its_own(
    tmp_path: Path, planned: Callable[..., Plan], run_with: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_pool.torch.cuda, "device_count", lambda: 1)  # Ray counts GPUs, and looks for none
    plan = planned("signing_network", SIGNING_MODEL, 'methods=["dense"]', "seeds=[0, 1]")
    (tmp_path / "signed").unlink()
    run = run_with(ray_pool, plan, tmp_path / "ray", workers=1)
    assert {(outcome.status, outcome.message) for outcome in run.outcomes} == {("done", "")}
    signed = set((tmp_path / "signed").read_text().split())
    assert len(signed) == len(plan.cells) > 1
    assert str(os.getpid()) not in signed


@pytest.mark.slow
def test_cells_at_a_time_are_more_than_gpus(
    tmp_path: Path, planned: Callable[..., Plan], run_with: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_pool.torch.cuda, "device_count", lambda: 1)  # Ray counts GPUs, and looks for none
    plan = planned("meeting_network", MEETING_MODEL, 'methods=["random"]', "seeds=[0, 1, 2]")
    (tmp_path / "meet").touch()
    run = run_with(ray_pool, plan, tmp_path / "ray", workers=3)
    assert {(outcome.status, outcome.message) for outcome in run.outcomes} == {("done", "")}
    assert len(list(tmp_path.glob("here-*"))) >= 3


@pytest.mark.parametrize("num_gpus", [1, 2, 3, 8])
@pytest.mark.parametrize("workers", range(1, 40))
def test_all_workers_find_a_place_and_no_share_spans_two_gpus(workers: int, num_gpus: int) -> None:
    share = gpu_share("dense", workers, num_gpus)
    units = round(share * ray_pool.RAY_UNITS)
    assert units / ray_pool.RAY_UNITS == share
    cells_per_gpu = ray_pool.RAY_UNITS // units
    assert num_gpus * (cells_per_gpu - 1) < max(workers, num_gpus) <= num_gpus * cells_per_gpu
    assert gpu_share("prune", workers, num_gpus) == share


def test_without_gpus_nothing_is_shared_and_curvature_shares_nothing() -> None:
    assert gpu_share("dense", 7, 0) == gpu_share("limit", 7, 0) == 0
    alone = {kind for kind in available("suite.cells") if gpu_share(kind, 7, 2) == 1}
    assert alone == set(available("suite.cells")) - {"dense", "prune"}
