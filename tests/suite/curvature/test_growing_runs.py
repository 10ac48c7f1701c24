import math
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from data.hdf5 import FileRefused
from suite.curvature.growing_runs import GrowingRuns, growing_inline_map, kept_runs, source_folder
from suite.curvature.operators import MatrixOperator
from suite.curvature.probes import ProbeRequest, RemovedWeightsRequest
from suite.curvature.saved_runs import save_run
from suite.curvature.slq import inline_map, run_probe, run_requests


class Weighted(MatrixOperator):
    """A random symmetric matrix with weights."""

    def __init__(self, seed: int, dim: int = 40) -> None:
        draw = torch.Generator().manual_seed(seed)
        matrix = torch.randn((dim, dim), generator=draw, dtype=torch.float64)
        super().__init__(matrix + matrix.T)
        self._weights = torch.randn(dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def weights(self) -> torch.Tensor:
        return self._weights.clone()


@dataclass(frozen=True)
class Source:
    seed: int = 0

    def build(self) -> Weighted:
        return Weighted(self.seed)


PROBE, REMOVED = ProbeRequest(3, 1, "rademacher", 4), RemovedWeightsRequest(11, 4)


def same(first, second) -> bool:
    one, other = first.tridiagonal, second.tridiagonal
    return (
        np.array_equal(one.diagonal, other.diagonal)
        and np.array_equal(one.off_diagonal, other.off_diagonal)
        and (one.residual_norm, one.start_norm, one.status) == (other.residual_norm, other.start_norm, other.status)
    )


@pytest.mark.parametrize("request_", [PROBE, REMOVED])
def test_results_depend_on_the_request_alone_and_no_step_is_paid_for_twice(request_):
    runs, products = GrowingRuns(Weighted(0)), []
    for steps in (4, 9, 6, 9, 15):
        wanted = replace(request_, num_lanczos_steps=steps)
        result = runs.run(wanted)
        assert same(result, run_probe(Weighted(0), wanted))
        assert result.request == wanted
        products.append(runs.operator.num_matvecs)
    assert products == [4, 9, 9, 9, 15]


@pytest.mark.parametrize("request_", [PROBE, REMOVED])
def test_a_folder_keeps_runs_from_one_process_to_the_next(request_, tmp_path):
    GrowingRuns(Weighted(0), tmp_path).run(replace(request_, num_lanczos_steps=9))
    again = GrowingRuns(Weighted(0), tmp_path)
    assert same(again.run(request_), run_probe(Weighted(0), request_))
    assert again.operator.num_matvecs == 1  # which showed that the run is this operator's
    longer = replace(request_, num_lanczos_steps=20)
    assert same(again.run(longer), run_probe(Weighted(0), longer))
    assert again.operator.num_matvecs == 1 + 11


def test_a_kill_between_two_files_leaves_the_state_before(tmp_path, monkeypatch):
    GrowingRuns(Weighted(0), tmp_path).run(PROBE)
    with monkeypatch.context() as patch:
        patch.setattr("suite.curvature.saved_runs.write_sealed", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            GrowingRuns(Weighted(0), tmp_path).run(replace(PROBE, num_lanczos_steps=9))
    longer = replace(PROBE, num_lanczos_steps=13)
    assert same(GrowingRuns(Weighted(0), tmp_path).run(longer), run_probe(Weighted(0), longer))


def test_only_files_that_are_needed_stay(tmp_path):
    runs = GrowingRuns(Weighted(0), tmp_path)
    for steps in (4, 9, 15):
        runs.run(replace(PROBE, num_lanczos_steps=steps))
    names = sorted(path.name for path in (tmp_path / PROBE.name).iterdir())
    expected = [".lock", "rows-0-4-W.bin", "rows-4-9-W.bin", "rows-9-15-W.bin", "state.h5", "vectors-15-W.bin"]
    assert [re.sub("-[0-9a-f]{8}.bin", "-W.bin", name) for name in names] == expected


def test_runs_of_other_data_or_weights_are_refused(tmp_path):
    GrowingRuns(Weighted(0), tmp_path).run(PROBE)
    with pytest.raises(FileRefused, match=r"on other data or another network\. Expected"):
        GrowingRuns(Weighted(1), tmp_path).run(PROBE)
    other = Weighted(0)
    other._weights *= 2
    with pytest.raises(FileRefused, match="is a run of another operator"):
        GrowingRuns(other, tmp_path).run(PROBE)


@pytest.mark.parametrize("pattern", ["rows-0-4-*.bin", "vectors-4-*.bin", "state.h5"])
def test_damage_is_refused(tmp_path, pattern):
    GrowingRuns(Weighted(0), tmp_path).run(PROBE)
    (path,) = (tmp_path / PROBE.name).glob(pattern)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileRefused, match=path.name):
        GrowingRuns(Weighted(0), tmp_path).run(PROBE)


def test_too_many_steps_are_refused_before_anything_is_kept(tmp_path):
    with pytest.raises(ValueError, match="num_lanczos_steps=41 is too large"):
        GrowingRuns(Weighted(0), tmp_path).run(replace(PROBE, num_lanczos_steps=41))
    assert list(tmp_path.iterdir()) == []


def test_a_nonfinite_product_stays_an_outcome(tmp_path):
    operator = Weighted(0)
    operator._matrix[0, 0] = math.nan
    assert GrowingRuns(operator, tmp_path).run(PROBE).tridiagonal.status == "nonfinite"
    assert GrowingRuns(operator, tmp_path).run(PROBE).tridiagonal.status == "nonfinite"


@pytest.mark.parametrize("with_folder", [False, True])
def test_the_growing_map_is_the_inline_map(with_folder, tmp_path):
    with growing_inline_map(tmp_path if with_folder else None) as growing:
        for source in (Source(0), Source(1), Source(0)):  # back again: recomputed, or found in the folder
            for steps in (3, 8):
                requests = [replace(each, num_lanczos_steps=steps) for each in (PROBE, REMOVED)]
                found, expected = (run_requests(source, requests, each) for each in (growing, inline_map))
                assert all(same(found[each], expected[each]) for each in requests)
    assert source_folder(tmp_path, Source(0)).exists() == with_folder


def test_maps_that_lose_or_repeat_a_run_are_found_out():
    def lossy(source, requests):
        yield from list(inline_map(source, requests))[1:]

    def repeating(source, requests):
        yield from 2 * list(inline_map(source, requests))

    with pytest.raises(RuntimeError, match="returned 1 of 2 runs"):
        run_requests(Source(), [PROBE, REMOVED], lossy)
    with pytest.raises(RuntimeError, match="Expected: each exactly once"):
        run_requests(Source(), [PROBE], repeating)


def test_a_late_copy_of_a_run_takes_nothing_from_the_folder(tmp_path):
    ahead, late = (GrowingRuns(Source(0).build(), tmp_path) for _ in range(2))
    few, many = (ProbeRequest(0, 0, "rademacher", steps) for steps in (3, 6))
    late.run(few)
    late._runs.clear()
    begun = late._found(few)  # as a second worker holds it, which was asked for the same
    whole = ahead.run(many)
    save_run(begun, tmp_path / few.name, late._identity)
    again = GrowingRuns(Source(0).build(), tmp_path).run(many)
    assert np.array_equal(again.tridiagonal.diagonal, whole.tridiagonal.diagonal)
    assert np.array_equal(again.tridiagonal.off_diagonal, whole.tridiagonal.off_diagonal)
    assert again.tridiagonal.status == whole.tridiagonal.status


def test_a_kept_run_tells_the_products_of_the_request_alone():
    told: list[int] = []
    with growing_inline_map() as kept:
        list(kept.watched(told.append)(Source(), [PROBE]))
        list(kept.watched(told.append)(Source(), [replace(PROBE, num_lanczos_steps=7)]))
        list(kept.watched(told.append)(Source(), [PROBE]))
    assert told == [0, 1, 2, 3, 4, 0, 1, 2, 3, 0]


def test_a_late_copy_leaves_the_rows_of_one_that_is_further(tmp_path):
    late = GrowingRuns(Weighted(0), tmp_path)
    late.run(PROBE)
    GrowingRuns(Weighted(0), tmp_path).run(replace(PROBE, num_lanczos_steps=12))
    newer = set(tmp_path.glob("*/rows-4-12-*.bin"))
    late.run(replace(PROBE, num_lanczos_steps=6))
    assert len(newer) == 1
    assert newer <= set(tmp_path.glob("*/*.bin"))


def test_the_basis_of_the_run_to_go_on_with_has_its_place_before_those_of_others(monkeypatch):
    """Room for two bases of eight rows: the third run sends the one that waited longest out of the way."""
    monkeypatch.setattr("suite.curvature.growing_runs.basis_room_bytes", lambda _: 2 * 8 * 40 * 8)
    parked = []
    monkeypatch.setattr("suite.curvature.basis.KrylovBasis.park", lambda basis: parked.append(basis))
    runs = GrowingRuns(Weighted(0))
    bases = []
    for index in range(3):
        request = ProbeRequest(3, index, "rademacher", 4)
        runs.run(request)
        bases.append(runs._runs[request.name].basis)
    assert parked == [bases[0]]


def test_runs_are_let_go_of_when_a_search_ends():
    with growing_inline_map() as growing:
        with kept_runs(growing, None) as searching:
            list(searching(Source(), [PROBE]))
            assert growing._latest
        assert not growing._latest
