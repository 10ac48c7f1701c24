"""What this machine cannot run is refused for cells that are to run, and for no others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from launchers import inline
from launchers._this_machine import check_this_machine, check_workers
from suite.errors import UserError
from suite.plan import Plan
from suite.planner import make_plan
from suite.store import Store
from suite.study import read_study

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is one, and it has TF32")


@pytest.fixture
def planned(write_tiny_study: Callable[[Path], Path], tmp_path: Path) -> Callable[..., Plan]:
    study = write_tiny_study(tmp_path)

    def plan(*settings: str) -> Plan:
        few = ('methods=["random"]', "sparsities=[0.5]", "seeds=[0]", "analyses=[]", "options={}")
        return make_plan(*read_study(str(study), [*few, *settings]))

    return plan


@needs_no_gpu
@pytest.mark.parametrize("setting", ['training.precision="tf32"', 'training.compile="cuda_graphs"'])
def test_what_needs_a_gpu_is_refused_without_one(planned: Callable[..., Plan], setting: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^task tiny: training\.\w+ = \"\w+\" needs a CUDA GPU, this is cpu\."):
        check_this_machine(planned(setting), Store(tmp_path / "new"), 2)
    assert not (tmp_path / "new").exists()


def test_threads_are_bounded_by_processors(planned: Callable[..., Plan], tmp_path: Path) -> None:
    plan = planned("threads=8")
    check_this_machine(plan, Store(tmp_path / "new"), 2)
    with pytest.raises(UserError, match=r"threads = 8 is too much for 1 processor\. Expected: at most 4, 4 for each;"):
        check_this_machine(plan, Store(tmp_path / "new"), 1)


def test_what_is_committed_needs_nothing(planned: Callable[..., Plan], tmp_path: Path, monkeypatch: Any) -> None:
    plan, store = planned(), Store(tmp_path / "done")
    store.prepare()
    inline.run(plan, store.folder, workers=1, report=lambda _: None)
    monkeypatch.setattr("launchers._this_machine.MOST_THREADS", 0)
    check_this_machine(plan, store, 1)
    with pytest.raises(UserError, match="threads = 1 is too much"):
        check_this_machine(plan, Store(tmp_path / "new"), 1)


@pytest.mark.parametrize(("workers", "processors"), [(None, 1), (16, 1), (32, 2)])
def test_workers_that_fit(workers: int | None, processors: int) -> None:
    check_workers(workers, processors)


def test_workers_that_do_not_fit() -> None:
    with pytest.raises(UserError, match=r"--workers 33 is too much for 2 processors\. Expected: at most 32, 16 for e"):
        check_workers(33, 2)
