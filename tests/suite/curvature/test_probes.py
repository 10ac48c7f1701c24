import math

import numpy as np
import pytest
import torch

from suite.curvature.operators import DiagonalOperator
from suite.curvature.probes import (
    ProbeRequest,
    RemovedWeightsRequest,
    probe_seed,
    probe_vector,
    removed_weights,
    start_vector,
)
from suite.limits.removal import MagnitudeOrder

CPU = torch.device("cpu")
DISTRIBUTIONS = ["rademacher", "normal", "sphere"]


def _draw(distribution, index=0, seed=1, steps=8, dim=4000, dtype=torch.float64):
    return probe_vector(ProbeRequest(seed, index, distribution, steps), dim, dtype, CPU)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_probe_depends_on_seed_and_index_alone(distribution):
    first = _draw(distribution)
    generator_state = torch.get_rng_state()
    assert torch.equal(first, _draw(distribution, steps=99))
    assert torch.equal(generator_state, torch.get_rng_state())
    assert not torch.equal(first, _draw(distribution, index=1))
    assert not torch.equal(first, _draw(distribution, seed=2))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_dtypes_see_the_same_probe(distribution):
    assert torch.equal(_draw(distribution, dtype=torch.float32), _draw(distribution).float())


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_second_moment_is_the_identity(distribution):
    probes = torch.stack([_draw(distribution, index, dim=6) for index in range(4000)])
    moment = probes.T @ probes / 4000
    # Standard error of an entry: at most sqrt(2 / 4000) on the diagonal.
    assert (moment - torch.eye(6, dtype=torch.float64)).abs().max() < 4.5 * math.sqrt(2 / 4000)


def test_shapes_of_the_distributions():
    assert set(_draw("rademacher").tolist()) == {-1.0, 1.0}
    assert float(_draw("sphere").norm()) == pytest.approx(math.sqrt(4000), rel=1e-12)
    assert float(_draw("normal").norm()) != pytest.approx(math.sqrt(4000), rel=1e-6)


def test_neighbouring_seeds_and_indices_do_not_meet():
    seeds = {probe_seed(seed, index) for seed in range(50) for index in range(50)}
    assert len(seeds) == 2500
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_stream_is_pinned():
    assert probe_seed(0, 0) == 7311332029459902938
    assert _draw("rademacher", dim=8, seed=0).tolist() == [-1.0, -1.0, -1.0, 1.0, 1.0, 1.0, -1.0, 1.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, "uniform", 4), "No probe distribution named 'uniform'. Known: rademacher, normal, sphere"),
        ((0, -1, "normal", 4), "index=-1"),
        ((0, 0, "normal", 0), "num_lanczos_steps=0"),
    ],
)
def test_requests_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        ProbeRequest(*arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_removed_weights_are_those_of_the_magnitude_order(dtype):
    draw = torch.Generator().manual_seed(4)
    weights = torch.randint(-6, 7, (500,), generator=draw).to(dtype) / 7  # many ties, and zeros
    order = MagnitudeOrder.of(weights.double().numpy())
    for num_removed in (1, 77, 250, 499, 500):
        delta = removed_weights(weights, num_removed)
        assert delta.dtype == dtype
        assert np.array_equal(delta.double().numpy(), order.removed(num_removed))


def test_removed_weights_of_a_network(small_mlp):
    operator = small_mlp.operator()
    order = MagnitudeOrder.of(operator.weights().numpy())
    assert np.array_equal(start_vector(RemovedWeightsRequest(20, 3), operator).numpy(), order.removed(20))


def test_runs_from_removed_weights_that_cannot_be():
    operator = DiagonalOperator(torch.ones(5))
    with pytest.raises(ValueError, match=r"num_removed=6 is too large\. Expected: at most dim=5"):
        start_vector(RemovedWeightsRequest(6, 1), operator)
    with pytest.raises(ValueError, match="DiagonalOperator has no weights"):
        start_vector(RemovedWeightsRequest(5, 1), operator)
    for fields in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match=r"=0 is too small\. Expected: at least 1"):
            RemovedWeightsRequest(*fields)
