"""Studies for the cluster, and one that this process queues and watches while the test sees to what befalls it."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launchers import slurm
from launchers._events import Event, Said
from launchers._profile import Profile
from launchers._slurm_cluster import SlurmCluster
from launchers._submission import SubmissionFolder, elements_of, submissions
from launchers._watch import Watch
from suite.attempt import Outcome
from suite.plan import Cell, Plan
from suite.planner import make_plan
from suite.store import Store
from suite.study import read_study

PATIENCE_S = 300  # a bound for a busy machine, never a measurement

# One of each kind of cell, eleven cells in three waves.
WHOLE = (
    'methods=["dense", "lomp", "random"]',
    "sparsities=[0.5, 0.75]",
    'analyses=["spectrum", "limit"]',
    "options={spectrum={num_lanczos_steps=20}, limit={num_lanczos_steps=20, max_evaluations=12, fine_tune_epochs=1}}",
)
# For each seed five cells: two dense ones, the second of which takes seconds; one needs the first, two the second.
SLOW_EPOCHS = 6000
SLOW = (
    'methods=["random", "lomp"]',
    "sparsities=[0.5]",
    "seeds=[0, 1]",
    "analyses=[]",
    "options={}",
    f"recipes.lomp.epochs={SLOW_EPOCHS}",
)
ONE_SEED = (*SLOW, "seeds=[0]")
# An element of the first wave holds the dense cells of one seed, the quick one first.
PACKED = Profile(time_min=20, memory_gib=1, cells_per_job=2, environment=("OMP_NUM_THREADS",))


def plan_of(study: Path, settings: tuple[str, ...]) -> Plan:
    return make_plan(*read_study(str(study), settings))


def slow_cells(plan: Plan) -> list[Cell]:
    """Return the dense cells that take seconds, one for each seed."""
    dense = [cell for cell in plan.cells if cell.id.kind == "dense"]
    return [cell for cell in dense if cell.config["recipe"]["epochs"] == SLOW_EPOCHS]


def needing(plan: Plan, cell: Cell) -> list[Cell]:
    return [each for each in plan.cells if cell.id in each.inputs.values()]


def wait_until(reached: Callable[[], bool], complaint: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline_s, complaint
        time.sleep(0.05)


class Drive:
    """A study in the queue, and a driver that waits for it in a thread, as `espalier run` does.

    Args:
        plan: of the study.
        folder: of the study.
        profile: how it is queued.
        most_s: between two looks; less than the driver allows itself, so that tests are short.
    """

    def __init__(self, plan: Plan, folder: Path, profile: Profile = PACKED, most_s: float = 0.5) -> None:
        self.plan, self.folder, self.most_s = plan, folder, most_s
        self.events: list[Event] = []
        self._outcomes: list[Outcome] = []
        Store(folder).prepare()
        plan.freeze(folder)
        self.profile = profile
        slurm.submit(plan, folder, profile, SlurmCluster())
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        def sleep(pause_s: float) -> None:
            time.sleep(min(pause_s, self.most_s))

        cluster = SlurmCluster()
        retries = slurm.retries_of(self.plan, self.folder, self.profile, cluster)
        watch = Watch(self.plan, self.folder, cluster, self.events.append, settle_s=5, sleep=sleep, retries=retries)
        self._outcomes = watch.wait()

    def outcomes(self, patience_s: float = PATIENCE_S) -> dict[str, Outcome]:
        """Wait for the end; return the outcome of each cell by its key."""
        self._thread.join(patience_s)
        assert self._outcomes, "the driver does not come to its end"
        return {outcome.cell.key: outcome for outcome in self._outcomes}

    def said(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Said)]

    def job_of(self, cell: Cell) -> str:
        _, array, index = elements_of(submissions(self.folder))[cell.id.key]
        return array.ids[index]

    def told(self, cell: Cell) -> list[dict[str, Any]]:
        """Return what the job that holds a cell has told of it."""
        submission, array, index = elements_of(submissions(self.folder))[cell.id.key]
        told = SubmissionFolder(self.folder, submission.name).told(array.number, index)
        return [event for event in told if event["cell"] == cell.id.key]

    def wait_until_at_work(self, cell: Cell) -> None:
        """Return as soon as a cell's job has told that it computes it."""

        def is_at_work() -> bool:
            told = self.told(cell)
            return bool(told) and told[-1]["event"] == "started"

        wait_until(is_at_work, f"{cell.title} is never computed")
