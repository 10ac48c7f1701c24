"""One bad cell in a pack: what is behind it in its job was never tried, and must not go down with it."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from launchers import slurm
from launchers._again import BEHIND, Again, Retries
from launchers._job_states import JobState
from launchers._loss import explanation
from launchers._profile import Profile
from launchers._retry import plan_again
from launchers._slurm_cluster import SlurmCluster
from launchers._slurm_facts import Partition
from launchers._standing import overview
from launchers._submission import QueuedArray, SubmissionFolder, submissions
from launchers._watch import Watch
from suite.attempt import Outcome, attempt
from suite.plan import Cell, Plan
from suite.planner import make_plan
from suite.store import Store
from suite.study import read_study
from tests.launchers.fake_slurm import FakeSlurm

SETTINGS = ('methods=["random"]', "sparsities=[0.8]", "seeds=[0, 1, 2, 3]", "analyses=[]", "training.epochs=1")
PROFILE = Profile(time_min=20, memory_gib=0.5, cells_per_job=10)
Poisoned = Callable[[Sequence[Cell], str], Callable[[], None]]


class Dead(BaseException):
    """What no job catches."""


@pytest.fixture(scope="module")
def plan(data_folder: Path) -> Plan:
    """Dense cells that fit into one job, and cells that need them."""
    return make_plan(*read_study("quickstart", SETTINGS))


@pytest.fixture
def pack(plan: Plan, fake: FakeSlurm, study: Path, monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """The cells of the first job in the queue, in its order."""
    monkeypatch.setattr("launchers._element.LOOK_S", 0.0)
    slurm.submit(plan, study, PROFILE, SlurmCluster())
    cells = {cell.id.key: cell for cell in plan.cells}
    return [cells[key] for key in submissions(study)[0].arrays[0].elements[0]]


@pytest.fixture
def poisoned(fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> Poisoned:
    """Return what runs all that may run; jobs end in a way of the test's as soon as they begin certain cells."""
    from launchers import _element

    real = _element.attempt

    def prepare(bad: Sequence[Cell], state: str) -> Callable[[], None]:
        def attempt(cell: Cell, *arguments: object, **more: object) -> Outcome:
            if cell in bad:
                raise Dead
            return real(cell, *arguments, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(_element, "attempt", attempt)
        return lambda: run_all(fake, state)

    return prepare


def run_all(fake: FakeSlurm, state: str) -> None:
    for job, each in fake.jobs.items():
        if each["state"] == "PENDING":
            try:
                fake.run(job)
            except Dead:
                fake.set(job, state=state, code="139:0" if state == "FAILED" else "0:0")


def waited(plan: Plan, folder: Path, step: Callable[[], None], profile: Profile = PROFILE) -> dict[str, Outcome]:
    cluster, looks = SlurmCluster(), iter(range(12))

    def sleep(_: float) -> None:
        next(looks)  # a loop that does not end is a StopIteration
        step()

    retries = slurm.retries_of(plan, folder, profile, cluster)
    watch = Watch(plan, folder, cluster, lambda _: None, settle_s=0, lag_s=0, retries=retries, sleep=sleep)
    return {outcome.cell.key: outcome for outcome in watch.wait()}


def sizes(folder: Path, pack: list[Cell]) -> list[list[int]]:
    """How many cells the elements have that hold some of these, one list for each submission."""
    wanted = {cell.id.key for cell in pack}
    elements = [[keys for array in each.arrays for keys in array.elements] for each in submissions(folder)]
    return [[len(keys) for keys in each if wanted & set(keys)] for each in elements]


@pytest.mark.parametrize(
    ("state", "words", "tries"),
    [
        ("OUT_OF_MEMORY", "ran out of memory; raise memory_gib of the profile (now 1.0) on n1; max_retries = 1", 2),
        ("FAILED", "ended with exit code 139 on n1", 1),
    ],
)
def test_one_bad_cell_costs_itself_and_what_needs_it(
    state: str, words: str, tries: int, plan: Plan, study: Path, pack: list[Cell], poisoned: Poisoned
) -> None:
    bad = pack[1]
    outcomes = waited(plan, study, poisoned([bad], state))
    failed = outcomes.pop(bad.id.key)
    assert (failed.status, failed.attempts) == ("failed", tries)
    assert words in failed.message
    needing = [cell.id.key for cell in plan.cells if bad.id in cell.inputs.values()]
    assert needing
    assert {outcomes.pop(key).message for key in needing} == {f"needs {bad.id.name}"}
    assert {outcome.status for outcome in outcomes.values()} == {"done"}


def test_what_was_begun_is_tried_again_in_a_job_of_its_own(
    plan: Plan, study: Path, pack: list[Cell], poisoned: Poisoned
) -> None:
    waited(plan, study, poisoned([pack[1]], "OUT_OF_MEMORY"))
    again = submissions(study)[1]
    assert again.again[pack[1].id.key]["cause"] == "OUT_OF_MEMORY"
    assert {again.again[cell.id.key]["cause"] for cell in pack[2:]} == {BEHIND}
    assert {again.again[cell.id.key]["number"] for cell in pack[2:]} == {0}
    holders = {key: array for key, array, _ in again.holders()}
    alone = holders[pack[1].id.key]
    assert (alone.elements, alone.resources["memory_gib"]) == (((pack[1].id.key,),), 1.0)
    assert {holders[cell.id.key].resources["memory_gib"] for cell in pack[2:]} == {0.5}


def test_a_pack_of_nothing_but_bad_cells_comes_to_an_end(
    plan: Plan, study: Path, pack: list[Cell], poisoned: Poisoned
) -> None:
    outcomes = waited(plan, study, poisoned(pack, "FAILED"))
    assert {outcomes[cell.id.key].message.partition(" on ")[0][-3:] for cell in pack} == {"139"}
    assert all(outcomes[cell.id.key].attempts == 1 for cell in pack)
    assert {outcome.status for outcome in outcomes.values()} == {"failed", "upstream_failed"}
    assert sizes(study, pack) == [[4], [2, 1], [1]]


@pytest.mark.parametrize(
    ("state", "retries", "words"),
    [
        ("CANCELLED", 1, " was cancelled on n1 before it came to this cell"),
        ("OUT_OF_MEMORY", 0, " ran out of memory before it came to this cell"),
    ],
)
def test_what_is_not_queued_again_is_not_blamed(
    state: str, retries: int, words: str, plan: Plan, study: Path, pack: list[Cell], poisoned: Poisoned
) -> None:
    step = poisoned([pack[1]], state)
    step()
    found = {each.name: each for each in overview(plan, study, SlurmCluster()).cells}
    outcomes = waited(plan, study, step, PROFILE.model_copy(update={"max_retries": retries}))
    for message in (found[pack[2].id.name].message, outcomes[pack[2].id.key].message):
        assert message.startswith("its job 12 ")
        assert message.endswith(words)
    assert len(submissions(study)) == 1


def test_a_retry_puts_what_was_begun_behind_what_was_not(
    plan: Plan, fake: FakeSlurm, study: Path, pack: list[Cell], poisoned: Poisoned
) -> None:
    step = poisoned([pack[0]], "OUT_OF_MEMORY")
    step()
    again = plan_again(plan, overview(plan, study, SlurmCluster()).cells, [])
    order = [cell.id.key for cell in again.cells]
    assert all(order.index(up.key) < order.index(cell.id.key) for cell in again.cells for up in cell.inputs.values())
    slurm.submit(again, study, PROFILE, SlurmCluster())
    step()
    states = {each.name: each.state for each in overview(plan, study, SlurmCluster()).cells}
    assert [states[cell.id.name] for cell in pack] == ["lost"] + ["done"] * (len(pack) - 1)


@pytest.mark.parametrize(("state", "memory_gib"), [("OUT_OF_MEMORY", 1.0), ("NODE_FAIL", 0.5)])
def test_each_of_several_that_were_begun_is_tried_again_in_a_job_of_its_own(
    state: str, memory_gib: float, plan: Plan, fake: FakeSlurm, study: Path, pack: list[Cell]
) -> None:
    shutil.rmtree(study / "slurm")
    partitions = fake.root / "partitions"
    partitions.write_text(partitions.read_text().replace("|2|2|", "|2|3|"))  # three processors on a node
    profile = PROFILE.model_copy(update={"cells_at_once": 3})
    slurm.submit(plan, study, profile, SlurmCluster())
    (lost,) = submissions(study)
    array = lost.arrays[0]
    assert array.resources["cells_at_once"] == 3
    done, *begun, behind = pack
    for cell in (done, *begun):  # what three children told, whose job was then lost
        SubmissionFolder(study, lost.name).tell(array.number, 0, {"event": "started", "cell": cell.id.key})
    attempt(done, study)
    for job in fake.jobs:
        fake.set(job, state=state if job == array.ids[0] else "COMPLETED")
    assert waited(plan, study, lambda: run_all(fake, state), profile).keys() == {cell.id.key for cell in plan.cells}
    _, again = submissions(study)
    holders = {key: (array, index) for key, array, index in again.holders()}
    for cell in begun:
        own, index = holders[cell.id.key]
        assert own.elements[index] == (cell.id.key,)
        assert (own.resources["cells_at_once"], own.resources["memory_gib"]) == (1, memory_gib)
        assert again.again[cell.id.key]["number"] == 1
    assert again.again[behind.id.key]["cause"] == BEHIND
    assert all(Store(study).is_committed(cell.id) for cell in pack)


def test_memory_that_is_shared_no_more_is_more() -> None:
    partition = Partition("batch", True, "up", 60, "OFF", 2, 2, 6.0, 2)
    retries = Retries(PROFILE, lambda _: partition, lambda _: None)
    asked = {"cpus": 4, "time_min": 20, "cells_per_job": 8, "memory_gib": 6.0}

    def decided(at_once: int) -> Again | str:
        array = QueuedArray(0, 0, asked | {"cells_at_once": at_once}, ("12",), (tuple("abcdefgh"),))
        return retries.decide("OUT_OF_MEMORY", array, 0, alone=True)

    shared = decided(4)
    assert isinstance(shared, Again)
    assert (shared.number, shared.raised, shared.resources.cells_at_once, shared.resources.cpus) == (1, {}, 1, 4)
    assert decided(1) == "; the default partition has no more"
    array = QueuedArray(0, 0, asked | {"cells_at_once": 4}, ("12",), (tuple("abcdef"),))
    fewer = retries.behind("OUT_OF_MEMORY", array, 0, 0)
    assert isinstance(fewer, Again)
    assert (fewer.resources.cells_per_job, fewer.resources.cells_at_once) == (3, 3)


@pytest.mark.parametrize(("at_once", "end"), [(1, "(now 6)"), (4, "(now 6) or lower cells_at_once (now 4)")])
def test_a_job_that_ran_out_of_memory_says_what_to_lower(at_once: int, end: str) -> None:
    asked = {"cpus": 4, "time_min": 20, "cells_per_job": 8, "memory_gib": 6, "cells_at_once": at_once}
    line = explanation(JobState("OUT_OF_MEMORY"), QueuedArray(0, 0, asked, ("12",), (("a", "b"),)))
    assert line == f"ran out of memory; raise memory_gib of the profile {end}"


def test_packs_are_halved_down_to_single_cells() -> None:
    def halved(cells_per_job: int, size: int) -> int:
        asked = {"cpus": 1, "time_min": 20, "cells_per_job": cells_per_job}
        array = QueuedArray(0, 0, asked, ("12",), (tuple("abcdefgh"[:size]),))
        found = Retries(PROFILE, lambda _: None, lambda _: None).behind("FAILED", array, 0, 0)
        assert isinstance(found, Again)
        return found.resources.cells_per_job

    assert [halved(8, 8), halved(10**12, 8), halved(8, 3), halved(2, 2)] == [4, 4, 1, 1]
