"""Probes kept in a cell's checkpoint: the same bits, only what is missing is run, and nothing damaged is believed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from suite.cells._context import Context
from suite.cells._kept_probes import KeptProbes
from suite.cells.spectrum import Config, run
from suite.curvature.operators import MatrixOperator
from suite.curvature.probes import ProbeRequest
from suite.curvature.slq import inline_map, slq
from suite.training.checkpoint import Trainings

REQUESTS = [ProbeRequest(3, index, "rademacher", 6) for index in range(3)]


class Source:
    def build(self) -> MatrixOperator:
        matrix = torch.randn((20, 20), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return MatrixOperator(matrix + matrix.T)


class Counted:
    """The inline map; fails after some probes, as a process that is killed would."""

    def __init__(self, most: int = 99) -> None:
        self.most, self.indices = most, list[int]()

    def __call__(self, source: Any, requests: Any) -> Iterator[Any]:
        for request in requests:
            if len(self.indices) == self.most:
                raise KeyboardInterrupt
            self.indices.append(request.index)
            yield from inline_map(source, [request])


def trainings(folder: Path | None, identity: str = "spectrum 12") -> Trainings:
    return Trainings(folder, identity)


def run_with(inner: Any, kept: Trainings, shortest_s: float = 0.0) -> list[Any]:
    return slq(Source(), REQUESTS, map=KeptProbes(inner, kept, shortest_s))


def same(one: list[Any], other: list[Any]) -> bool:
    return all(
        np.array_equal(a.tridiagonal.diagonal, b.tridiagonal.diagonal)
        and np.array_equal(a.tridiagonal.off_diagonal, b.tridiagonal.off_diagonal)
        and (a.tridiagonal.residual_norm, a.tridiagonal.start_norm, a.tridiagonal.status, a.request)
        == (b.tridiagonal.residual_norm, b.tridiagonal.start_norm, b.tridiagonal.status, b.request)
        for a, b in zip(one, other, strict=True)
    )


def test_after_a_kill_only_the_others_are_run_to_the_same_bits(tmp_path: Path) -> None:
    undisturbed = run_with(inline_map, trainings(None))
    with pytest.raises(KeyboardInterrupt):
        run_with(Counted(2), trainings(tmp_path / "cell"))
    later, kept = Counted(), trainings(tmp_path / "cell")
    assert same(run_with(later, kept), undisturbed)
    assert later.indices == [2]
    assert kept.earlier_s > 0.0
    again = Counted()
    assert same(run_with(again, trainings(tmp_path / "cell")), undisturbed)
    assert again.indices == []


def test_another_cell_machine_or_effort_begins_anew(tmp_path: Path) -> None:
    run_with(inline_map, trainings(tmp_path))
    other = Counted()
    run_with(other, trainings(tmp_path, "spectrum 12 on another processor"))
    more = Counted()
    requests = [ProbeRequest(3, index, "rademacher", 7) for index in range(3)]
    slq(Source(), requests, map=KeptProbes(more, trainings(tmp_path), 0.0))
    assert other.indices == more.indices == [0, 1, 2]


def test_a_damaged_file_is_computed_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    undisturbed = run_with(inline_map, trainings(tmp_path))
    path = sorted(tmp_path.glob("probe-1-*.h5"))[0]
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(bytes(content))
    inner = Counted()
    assert same(run_with(inner, trainings(tmp_path)), undisturbed)
    assert inner.indices == [1]
    assert "a probe is computed anew" in caplog.text


def test_a_full_disk_loses_no_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("suite.cells._kept_probes.write_sealed", full)
    assert same(run_with(inline_map, trainings(tmp_path)), run_with(inline_map, trainings(None)))


def test_short_probes_leave_no_file(tmp_path: Path) -> None:
    run_with(inline_map, trainings(tmp_path / "cell"), shortest_s=100.0)
    assert not (tmp_path / "cell").exists()


def test_progress_goes_through(tmp_path: Path) -> None:
    told: list[tuple[float, str]] = []
    kept = KeptProbes(inline_map, trainings(tmp_path), 0.0)
    slq(Source(), REQUESTS, map=kept, advance=lambda *each: told.append(each))
    assert told[-1][0] == 1.0
    assert any(0.0 < fraction < 0.3 for fraction, _ in told)  # within the first of three probes


def test_the_cell_keeps_its_probes(committed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeptProbes, "__init__", _eager)
    (cell,) = committed.cells("spectrum")
    paths = {role: (cell_id, committed.store.path(cell_id)) for role, cell_id in cell.inputs.items()}
    places, config = {"data": Path(cell.places["data"])}, Config.model_validate(cell.config, strict=False)
    first, second = Counted(2), Counted()
    with pytest.raises(KeyboardInterrupt):
        run(config, {}, Context(places, paths, first, trainings=trainings(tmp_path)))
    record = run(config, {}, Context(places, paths, second, trainings=trainings(tmp_path)))
    assert second.indices == [2, 3]
    stored = committed.record(cell).arrays
    assert all(np.array_equal(stored[name], record.arrays[name]) for name in stored)


def _eager(self: KeptProbes, inner: Any, kept: Trainings) -> None:
    """Keep also what takes no time."""
    for name, value in (("inner", inner), ("trainings", kept), ("shortest_s", 0.0)):
        object.__setattr__(self, name, value)
