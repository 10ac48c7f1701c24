import math
import pickle
import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from suite.curvature.operators import DiagonalOperator
from suite.curvature.probes import ProbeRequest
from suite.curvature.slq import inline_map, run_probe, slq, spectral_measure, start_measure


@dataclass(frozen=True)
class DiagonalSource:
    dim: int = 200
    scale: float = 1.0

    def eigenvalues(self) -> torch.Tensor:
        return self.scale * torch.linspace(0.0, 3.0, self.dim, dtype=torch.float64)

    def build(self) -> DiagonalOperator:
        return DiagonalOperator(self.eigenvalues())


@dataclass(frozen=True)
class NetworkSource:
    network: object

    def build(self):
        return self.network.operator()


def _requests(num_probes, steps=20, seed=3, distribution="rademacher"):
    return [ProbeRequest(seed, index, distribution, steps) for index in range(num_probes)]


@pytest.mark.parametrize("distribution", ["rademacher", "normal", "sphere"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_integrals_are_within_four_standard_errors(distribution, seed):
    results = slq(DiagonalSource(), _requests(12, seed=seed, distribution=distribution))
    mean, error = spectral_measure(results).integrate(lambda nodes: 1 / (0.5 + nodes))
    exact = float((1 / (0.5 + DiagonalSource().eigenvalues())).mean())
    # Rademacher probes see the diagonal of a diagonal matrix exactly: then only rounding of the rule is left.
    assert abs(mean - exact) < 4 * error + 1e-9


def test_trace_of_a_network_is_within_four_standard_errors(network):
    results = slq(NetworkSource(network), _requests(40, steps=10))
    mean, error = spectral_measure(results).integrate(lambda nodes: nodes)
    assert error > 0
    assert abs(mean - float(network.hessian().diagonal().mean())) < 4 * error


def test_order_of_arrival_does_not_matter():
    def shuffled(source, requests):
        results = list(inline_map(source, requests))
        random.Random(0).shuffle(results)
        yield from results

    one, other = slq(DiagonalSource(), _requests(6)), slq(DiagonalSource(), _requests(6), map=shuffled)
    assert [result.index for result in other] == list(range(6))
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first.tridiagonal.diagonal, second.tridiagonal.diagonal)


def test_any_sharding_gives_the_same_numbers():
    def sharded(source, requests):
        for shard in (requests[1::2], requests[0::2]):
            yield from inline_map(pickle.loads(pickle.dumps(source)), shard)

    one, other = slq(DiagonalSource(), _requests(5)), slq(DiagonalSource(), _requests(5), map=sharded)
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first.tridiagonal.off_diagonal, second.tridiagonal.off_diagonal)


def test_the_operator_is_built_once():
    built = []

    class Counting:
        def build(self):
            built.append(1)
            return DiagonalSource().build()

    slq(Counting(), _requests(4))
    assert len(built) == 1


@pytest.mark.parametrize("indices", [[0, 1], [0, 1, 2, 2], [0, 1, 3]], ids=["one lost", "one repeated", "one invented"])
def test_a_map_that_loses_or_repeats_is_caught(indices):
    operator = DiagonalSource().build()

    def broken(source, requests):
        for index in indices:
            yield run_probe(operator, ProbeRequest(3, index, "normal", 4))

    with pytest.raises(RuntimeError, match=r"for requests \[0, 1, 2\]\. Expected: each exactly once"):
        slq(DiagonalSource(), _requests(3), map=broken)


def test_repeated_requests_are_refused():
    with pytest.raises(ValueError, match="repeat an index"):
        slq(DiagonalSource(), _requests(2) + _requests(1))


def test_progress_counts_probes_and_results_carry_their_request():
    seen = []
    results = slq(DiagonalSource(), _requests(3), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert all(result.seed == 3 and result.seconds > 0 and result.restarts == 0 for result in results)


def silent_map(source, requests):
    """A map that cannot tell how far it is."""
    return inline_map(source, requests)


def test_advance_tells_speed_and_time_also_between_results():
    class Watched:
        def __init__(self, watch=None):
            self.watch = watch

        def watched(self, watch):
            return Watched(watch)

        def __call__(self, source, requests):
            self.watch(0)
            self.watch(5)
            yield from inline_map(source, requests)

    told = []
    slq(DiagonalSource(), _requests(2), map=Watched(), advance=lambda *each: told.append(each))
    assert [fraction for fraction, _ in told] == [0.125, 0.5, 1.0]
    assert [text.partition(",")[0] for _, text in told] == ["probe 0 of 2", "probe 1 of 2", "probe 2 of 2"]
    told.clear()
    slq(DiagonalSource(), _requests(2), map=silent_map, advance=lambda *each: told.append(each))
    assert [fraction for fraction, _ in told] == [0.5, 1.0]
    assert told[0][1].endswith(" left")


def test_more_steps_than_dimensions_are_refused():
    with pytest.raises(ValueError, match="num_lanczos_steps=20 is too large"):
        slq(DiagonalSource(dim=10), _requests(1))


def test_nonfinite_probes_are_results_but_no_measure():
    results = slq(DiagonalSource(scale=math.nan), _requests(2))
    assert [result.tridiagonal.status for result in results] == ["nonfinite", "nonfinite"]
    with pytest.raises(ValueError, match='status "nonfinite" in probe 0: the product was not finite at step 1'):
        spectral_measure(results)
    with pytest.raises(ValueError, match="the run from the given vector"):
        start_measure(DiagonalSource(scale=math.nan).build(), torch.ones(200, dtype=torch.float64), 3)


def test_start_measure_has_the_moments_of_its_vector(network):
    operator = network.operator()
    start = torch.linspace(-1, 2, operator.dim, dtype=torch.float64)
    measure = start_measure(operator, start, 8)
    unit = start / start.norm()
    moment = float(unit @ network.hessian() @ unit)
    assert measure.integrate(lambda nodes: nodes)[0] == pytest.approx(moment, rel=1e-10)
    assert measure.sampled is False


def test_the_inline_map_tells_every_product_of_the_unfinished_probe():
    told = []
    results = list(inline_map.watched(told.append)(DiagonalSource(), _requests(2, steps=3)))
    assert told == [0, 1, 2, 3] * 2
    assert [result.tridiagonal.num_lanczos_steps for result in results] == [3, 3]


def test_products_are_told_live_by_the_reference_map_too():
    told = []
    slq(DiagonalSource(), _requests(2, steps=10), advance=lambda fraction, text: told.append((fraction, text)))
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert fractions[0] == pytest.approx(0.05)
    assert any(text.startswith("probe 0 of 2, ") and " products/s, " in text for _, text in told)
