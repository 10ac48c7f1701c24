import json
from pathlib import Path
from typing import Any

import pytest

from launchers._profile import Resources, profiles, read_profile
from suite.errors import UserError
from suite.plan import Cell
from suite.store import CellId

Values = dict[str, Any]


def written(folder: Path, text: str) -> str:
    path = folder / "site.toml"
    path.write_text(text)
    return str(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(UserError) as caught:
        read_profile(written(folder, text))
    line = str(caught.value)
    assert "\n" not in line
    return line


def a_cell(kind: str = "prune", threads: int = 1, processes: int = 1) -> Cell:
    return Cell(CellId(kind, "0" * 64), {}, {}, "a cell", threads, processes=processes)


@pytest.mark.parametrize("name", sorted(profiles()))
def test_every_profile_reads_and_says_what_it_is(name: str) -> None:
    profile = read_profile(name)
    assert profile.description
    assert profile.resources(a_cell()).time_min > 0


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "time_min = 5\npartitoin = 'gpu'",
            "unknown key 'partitoin'. Did you mean 'partition'? Known: account, cells_",
        ),
        ("time_min = 5\n[kinds.prune]\ngpu = 1", "unknown key 'kinds.prune.gpu'. Did you mean 'gpus'? Known: account"),
        (
            "time_min = 5\n[container]\nimage='x'\nimag='x'",
            "unknown key 'container.imag'. Did you mean 'image'? Kn",
        ),
        ("partition = 'gpu'", "the key 'time_min' is missing"),
        ("time_min = '5'", "time_min = '5': Input should be a valid integer"),
        ("time_min = 5\nlearning_rate = 0.1", "unknown key 'learning_rate'"),
        ("time_min = 5\nmemory_gib = 0.0001", "memory_gib = 0.0001: Input should be greater than or equal to 0.00097"),
        ("time_min = 5\nmemory_gib = 1e300", "memory_gib = 1e+300: Input should be less than or equal to 1048576"),
        ("time_min = 5\nminutes_per_job = 1e300", "minutes_per_job = 1e+300: Input should be less than or equal to"),
        ("time_min = 5\nminutes_per_cell = 1e-300", "minutes_per_cell = 1e-300: Input should be greater than or"),
        ("time_min = 5\nraise_factor = 1e308", "raise_factor = 1e+308: Input should be less than or equal to 100"),
        ("time_min = 10000000000", "time_min = 10000000000: Input should be less than or equal to 2147483647"),
        ("time_min = 5\n[kinds.pruen]\ngpus = 1", "No kind of cell named 'pruen'. Did you mean 'prune'?"),
    ],
)
def test_what_does_not_belong_is_refused(text: str, line: str, tmp_path: Path) -> None:
    assert line in refusal(tmp_path, text)


@pytest.mark.parametrize("key", ["partition", "account", "qos", "constraint", "python", "scratch"])
@pytest.mark.parametrize("value", ["x\\necho y", "x;y", "`y`", "$(y)", "--wrap=y", "x y", "", "x\\u0000", 'x\\"'])
def test_a_value_that_could_smuggle_shell_is_refused(key: str, value: str, tmp_path: Path) -> None:
    assert f"{key} = " in refusal(tmp_path, f'time_min = 5\n{key} = "{value}"')


@pytest.mark.parametrize("value", ["a\\nb", "a; b", "a `b`", "a $(b)", "a && b", "a | b", "a > b", ""])
def test_a_line_of_setup_is_one_plain_command(value: str, tmp_path: Path) -> None:
    assert "setup.0" in refusal(tmp_path, f'time_min = 5\nsetup = ["{value}"]')


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("#SBATCH --exclusive", "begins with #"),
        ("  # a comment", "begins with #"),
        ("echo x \\", "not in a backslash"),
        ("export A='x", "quotes are closed"),
        ('export A="x', "quotes are closed"),
    ],
)
def test_a_line_of_setup_is_a_command_that_ends_with_its_line(value: str, rule: str, tmp_path: Path) -> None:
    line = refusal(tmp_path, f"time_min = 5\nsetup = [{json.dumps(value)}]")
    assert "setup.0 = " in line
    assert rule in line


def test_lists_and_containers_are_checked_as_well(tmp_path: Path) -> None:
    assert "modules.0" in refusal(tmp_path, 'time_min = 5\nmodules = ["cuda; rm"]')
    assert "environment.0" in refusal(tmp_path, 'time_min = 5\nenvironment = ["A=B"]')
    assert "container.image" in refusal(tmp_path, 'time_min = 5\n[container]\nimage = "a b"')
    assert "container.mounts" in refusal(tmp_path, 'time_min = 5\n[container]\nimage = "a"\nmounts = "/a:/b;c"')
    setup = """setup = ["source /opt/site/env.sh", "ulimit -n 4096", "export A='b # c'"]"""
    good = f'time_min = 5\n{setup}\nconstraint = "[rack1|rack2]&ib"'
    assert read_profile(written(tmp_path, good)).setup[0].startswith("source")


def test_a_kind_of_cell_has_resources_of_its_own(tmp_path: Path) -> None:
    text = "time_min = 5\npartition = 'cpu'\ncells_per_job = 8\n[kinds.spectrum]\ngpus = 2\ncells_per_job = 1"
    profile = read_profile(written(tmp_path, text))
    assert profile.resources(a_cell("prune")) == Resources(partition="cpu", cpus=1, time_min=5, cells_per_job=8)
    assert profile.resources(a_cell("spectrum")) == Resources(partition="cpu", gpus=2, cpus=2, time_min=5)


def test_tiny_cells_are_packed_by_their_estimates(tmp_path: Path) -> None:
    text = "time_min = 60\nminutes_per_job = 30\nminutes_per_cell = 4\n[kinds.limit]\nminutes_per_cell = 45"
    profile = read_profile(written(tmp_path, text))
    assert profile.resources(a_cell("prune")).cells_per_job == 7
    assert profile.resources(a_cell("limit")).cells_per_job == 1


def test_processors_follow_the_threads_of_the_cell(tmp_path: Path) -> None:
    assert read_profile(written(tmp_path, "time_min = 5")).resources(a_cell(threads=4)).cpus == 4
    with pytest.raises(UserError, match=r"cpus = 2 in the profile, but a cell computes with 4 threads"):
        read_profile(written(tmp_path, "time_min = 5\ncpus = 2")).resources(a_cell(threads=4))


def test_processors_and_gpus_follow_the_processes_of_the_cell(tmp_path: Path) -> None:
    shared = a_cell(threads=3, processes=4)
    assert read_profile(written(tmp_path, "time_min = 5")).resources(shared) == Resources(cpus=12, time_min=5)
    text = "time_min = 5\ngpus = 1\n[kinds.prune]\ngpus = 4"
    assert read_profile(written(tmp_path, text)).resources(shared) == Resources(gpus=4, cpus=12, time_min=5)
    assert read_profile(written(tmp_path, "time_min = 5\ngpus = 8")).resources(shared).gpus == 8
    with pytest.raises(UserError, match=r"gpus = 2 in the profile, but training\.data_parallel = 4 for a cell\. Exp.*"):
        read_profile(written(tmp_path, "time_min = 5\ngpus = 2")).resources(shared)
    with pytest.raises(UserError, match=r"cpus = 6 .* 3 threads in each of 4 processes\. Expected: at least 12"):
        read_profile(written(tmp_path, "time_min = 5\ncpus = 6")).resources(shared)


def test_several_cells_at_once_are_for_kinds_that_share_a_gpu(tmp_path: Path) -> None:
    text = "time_min = 5\ncells_per_job = 8\ncells_at_once = 4\n[kinds.prune]\ncells_per_job = 3"
    profile = read_profile(written(tmp_path, text))
    packed = Resources(cpus=8, time_min=5, cells_per_job=8, cells_at_once=4)
    assert profile.resources(a_cell("dense", threads=2)) == packed
    assert profile.resources(a_cell("prune")) == Resources(cpus=3, time_min=5, cells_per_job=3, cells_at_once=3)
    alone = Resources(cpus=2, time_min=5, cells_per_job=8)
    for cell in (a_cell("dense", processes=2), a_cell("limit", 2), a_cell("spectrum", 2), a_cell("row_norms", 2)):
        assert profile.resources(cell) == alone
    one = "time_min = 5\nminutes_per_job = 30\nminutes_per_cell = 10\n[kinds.dense]\ncells_at_once = 5"
    assert read_profile(written(tmp_path, one)).resources(a_cell("dense")).cells_at_once == 3
    assert read_profile(written(tmp_path, one)).resources(a_cell("prune")).cells_at_once == 1
    with pytest.raises(UserError, match=r"cpus = 4 .* 2 threads in each of 4 cells at once\. Expected: at least 8"):
        read_profile(written(tmp_path, f"cpus = 4\n{text}")).resources(a_cell("dense", threads=2))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[kinds.limit]\ncells_per_job = 4\ncells_at_once = 2", "kinds.limit.cells_at_once = 2 in profile "),
        ("[kinds.spectrum]\ncells_per_job = 4\ncells_at_once = 2", "that can share a GPU (dense, prune); remove it."),
        ("[kinds.spectrum]\nnodes = 2\ncells_at_once = 2", "kinds.spectrum.cells_at_once = 2 in profile "),
        ("nodes = 2\ncells_per_job = 4\ncells_at_once = 2", "Expected: several nodes only for"),
        ("cells_per_job = 2\ncells_at_once = 3", "with cells_per_job = 2. Expected: at most as many at once"),
        ("[kinds.prune]\ncells_per_job = 2\ncells_at_once = 3", "kinds.prune.cells_at_once = 3 in profile "),
        ("cells_at_once = 2", "with one cell in a job. Expected: several; give cells_per_job, or minutes_per_job and"),
        (
            "cells_per_job = 4\n[kinds.prune]\ncells_per_job = 1\ncells_at_once = 2",
            "prune.cells_at_once = 2 in profile",
        ),
        ("cells_at_once = 0", "cells_at_once = 0: Input should be greater than or equal to 1"),
    ],
)
def test_several_cells_at_once_that_cannot_be_are_refused(text: str, line: str, tmp_path: Path) -> None:
    assert line in refusal(tmp_path, f"time_min = 5\n{text}")


def test_several_nodes_are_for_kinds_whose_probes_are_spread(tmp_path: Path) -> None:
    text = "time_min = 5\n[kinds.spectrum]\nnodes = 2\ngpus = 2"
    profile = read_profile(written(tmp_path, text))
    assert profile.resources(a_cell("spectrum", threads=3)) == Resources(nodes=2, gpus=2, cpus=6, time_min=5)
    assert profile.resources(a_cell("prune")).nodes == 1
    assert "Expected: several nodes only for kinds" in refusal(tmp_path, "time_min = 5\nnodes = 2")
    assert "kinds.prune.nodes = 3" in refusal(tmp_path, "time_min = 5\n[kinds.prune]\nnodes = 3")
    assert "srun cannot be called" in refusal(tmp_path, f"{text}\n[container]\nimage = '/a.sqsh'")
    with pytest.raises(UserError, match=r"cpus = 4 .* 3 threads in each of 2 workers, one for each GPU"):
        read_profile(written(tmp_path, f"{text}\ncpus = 4")).resources(a_cell("spectrum", threads=3))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[kinds.spectrum]\ngpus = 2", "kinds.spectrum.gpus = 2"),
        ("[kinds.spectrum]\nnodes = 3", "kinds.spectrum.nodes = 3"),
        ("gpus = 4", "gpus = 4"),
        ("gpus = 4\n[kinds.prune]\ngpus = 1", "gpus = 4"),
    ],
)
def test_workers_of_probes_cannot_be_started_from_a_container(text: str, place: str, tmp_path: Path) -> None:
    container = "[container]\nimage = '/a.sqsh'"
    line = refusal(tmp_path, f"time_min = 5\n{text}\n{container}")
    assert line.startswith(f"{place} in profile ")
    assert "srun cannot be called from inside" in line
    one = f"time_min = 5\ngpus = 4\n[kinds.spectrum]\ngpus = 1\n{container}"
    assert read_profile(written(tmp_path, one)).resources(a_cell("spectrum")).gpus == 1


def test_an_unknown_profile_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="Did you mean 'gpu'"):
        read_profile("gpuu")
