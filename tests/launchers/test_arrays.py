from launchers._arrays import JobArray, job_arrays, needed_jobs, wave_of_each
from launchers._profile import Override, Profile, Resources
from launchers._submission import ancestors_of
from suite.plan import Cell
from suite.store import CellId


def a_cell(name: str, *inputs: Cell, kind: str = "prune") -> Cell:
    key = name.ljust(64, "0")
    return Cell(CellId(kind, key), {}, {str(index): each.id for index, each in enumerate(inputs)}, name, 1)


ROOT = a_cell("a", kind="dense")
MIDDLE = [a_cell(f"b{index}", ROOT) for index in range(7)]
LAST = a_cell("c", ROOT, MIDDLE[3])
CELLS = [ROOT, *MIDDLE, LAST]


def titles(array: JobArray) -> list[list[str]]:
    return [[cell.title for cell in element] for element in array.elements]


def test_a_wave_is_the_longest_way_from_what_needs_nothing() -> None:
    assert [wave_of_each(CELLS)[cell.id.key] for cell in CELLS] == [0] + [1] * 7 + [2]
    assert set(wave_of_each(CELLS[1:8]).values()) == {0}  # what is not queued is not waited for


def test_arrays_are_packed_and_split() -> None:
    arrays = job_arrays(CELLS, Profile(time_min=5, cells_per_job=2), limit=3)
    assert [titles(array) for array in arrays] == [
        [["a"]],
        [["b0", "b1"], ["b2", "b3"], ["b4", "b5"]],
        [["b6"]],
        [["c"]],
    ]
    assert [array.wave for array in arrays] == [0, 1, 1, 2]
    assert [cell for array in arrays for cell in array.cells] == CELLS


def test_each_kind_of_resources_has_arrays_of_its_own() -> None:
    other = a_cell("s", ROOT, kind="spectrum")
    profile = Profile(time_min=5, kinds={"spectrum": Override(gpus=2)})
    arrays = job_arrays([*CELLS, other], profile, limit=100)
    assert [(array.wave, array.resources.gpus, len(array.elements)) for array in arrays] == [
        (0, 0, 1),
        (1, 0, 7),
        (1, 2, 1),
        (2, 0, 1),
    ]


def test_the_number_of_arrays_does_not_grow_with_the_cells_of_a_wave() -> None:
    wide = [ROOT, *(a_cell(f"{index:05}x", ROOT) for index in range(10_000))]
    assert len(job_arrays(wide, Profile(time_min=5, cells_per_job=10), limit=1000)) == 2


def test_an_array_waits_for_the_jobs_that_hold_its_inputs() -> None:
    array = JobArray(2, Resources(cpus=1, time_min=5), ((LAST,),))
    assert needed_jobs(array, {ROOT.id.key: "9", MIDDLE[3].id.key: "11", MIDDLE[0].id.key: "13"}) == ["9", "11"]


def test_ancestors_are_those_without_a_record() -> None:
    array = JobArray(2, Resources(cpus=1, time_min=5), ((LAST,),))
    found = ancestors_of(array, {cell.id.key: cell for cell in CELLS})
    assert found == {
        LAST.id.name: [ROOT.id.name, MIDDLE[3].id.name],
        MIDDLE[3].id.name: [ROOT.id.name],
        ROOT.id.name: [],
    }
    assert ancestors_of(array, {LAST.id.key: LAST}) == {LAST.id.name: []}
