import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from suite.curvature.allocation import live_bytes
from suite.curvature.memory import memory_plan
from suite.curvature.operators import HessianOperator, MatrixOperator
from suite.curvature.pace import silent
from suite.curvature.rows import percentile_rows, row_l1_norms, sample_row_norms
from suite.measure.watch import WatchedOperator


@pytest.fixture
def wide():
    """The planned Hessian of a network of 12,300 weights, over few examples: its vectors are most of its memory."""
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Linear(20, 100), nn.Tanh(), nn.Linear(100, 100), nn.Tanh(), nn.Linear(100, 3))
    draw = torch.Generator().manual_seed(0)
    batch = torch.randn(6, 20, generator=draw), torch.arange(6) % 3
    operator = HessianOperator(model, ["0.weight", "2.weight", "4.weight"], [batch])
    operator.plan = memory_plan(operator, 6, may_keep_graphs=False)
    return operator


@pytest.mark.parametrize("block_size", [1, 5, 64])
def test_norms_and_diagonal_equal_the_dense_hessian_s(network, block_size):
    operator, hessian = network.operator(), network.hessian().numpy()
    rows = np.arange(operator.dim)[::-3]
    found = row_l1_norms(operator, rows, block_size=block_size)
    np.testing.assert_allclose(found.l1_norms, np.abs(hessian[rows]).sum(axis=1), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.diagonal, np.diag(hessian)[rows], rtol=1e-9, atol=1e-12)
    assert np.array_equal(found.rows, rows)
    assert found.num_matvecs == operator.num_matvecs == len(rows)


def test_the_split_into_batches_changes_nothing(small_mlp):
    # Rows of single batches have larger norms: absolute values of a mean are below the mean of absolute values.
    whole = row_l1_norms(small_mlp.operator(), [0, 40]).l1_norms
    parts = [type(small_mlp)(small_mlp.model, small_mlp.names, [batch]).operator() for batch in small_mlp.batches]
    shares = [len(targets) / 17 for _, targets in small_mlp.batches]
    apart = sum(share * row_l1_norms(part, [0, 40]).l1_norms for share, part in zip(shares, parts, strict=True))
    joined = [tuple(torch.cat(parts) for parts in zip(*small_mlp.batches, strict=True))]
    together = row_l1_norms(type(small_mlp)(small_mlp.model, small_mlp.names, joined).operator(), [0, 40]).l1_norms
    np.testing.assert_allclose(whole, together, rtol=1e-10)
    assert (apart > 1.05 * whole).all()


def test_a_row_may_stand_twice_and_none_is_none():
    operator = MatrixOperator(torch.tensor([[1.0, -2.0], [-2.0, -5.0]]))
    found = row_l1_norms(operator, [1, 0, 1])
    assert found.l1_norms.tolist() == [7.0, 3.0, 7.0]
    assert found.diagonal.tolist() == [-5.0, 1.0, -5.0]
    assert row_l1_norms(operator, np.array([], dtype=int)).l1_norms.shape == (0,)


def test_progress_counts_rows():
    seen = []
    operator = MatrixOperator(torch.eye(10))
    row_l1_norms(operator, range(5), block_size=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize("num_rows", [8, 20])
def test_a_block_takes_two_vectors_per_row_beside_the_product(wide, num_rows):
    live = live_bytes(lambda: row_l1_norms(wide, range(num_rows), block_size=8), wide.device)
    assert max(live) <= 2 * 8 * wide.dim * 4 + wide.plan.product_bytes


def test_the_plan_says_how_many_rows_share_a_product(wide, caplog):
    caplog.set_level(logging.INFO, "suite.curvature.rows")
    wanted = row_l1_norms(wide, range(10))
    assert caplog.text == ""  # all fit
    wide.plan = replace(wide.plan, budget_bytes=wide.plan.product_bytes + wide.plan.weights_bytes + 8 * wide.dim * 4)
    seen = []
    for operator in (wide, WatchedOperator(wide, "rows", 10, silent)):
        found = row_l1_norms(operator, range(10), progress=lambda done, _: seen.append(done))
        np.testing.assert_allclose(found.l1_norms, wanted.l1_norms, rtol=1e-12)
        assert np.array_equal(found.diagonal, wanted.diagonal)
    assert seen == [4, 8, 10] * 2
    assert "4 rows of the Hessian at a time instead of 10, in 0.4 MiB" in caplog.text


@pytest.mark.parametrize("dim", [100, 101, 199, 12_345])
def test_every_percentile_gives_one_of_its_rows(dim):
    weights = np.random.default_rng(0).standard_normal(dim)
    rows = percentile_rows(weights, seed=3)
    rank = np.empty(dim, dtype=int)
    rank[np.argsort(np.abs(weights))] = np.arange(dim)
    edges = np.arange(101) * dim // 100
    assert len(rows) == 100
    assert (edges[:-1] <= rank[rows]).all()
    assert (rank[rows] < edges[1:]).all()


def test_the_draw_is_even_within_a_percentile_and_hangs_on_the_seed_alone():
    weights = np.arange(1.0, 41.0)
    draws = np.array([percentile_rows(weights, seed, num_percentiles=10) for seed in range(4000)])
    for percentile in range(10):
        counts = np.bincount(draws[:, percentile] - 4 * percentile, minlength=4)
        assert len(counts) == 4
        assert np.abs(counts - 1000).max() < 5 * np.sqrt(4000 * 0.25 * 0.75)
    assert np.array_equal(draws[7], percentile_rows(weights, 7, num_percentiles=10))


def test_equal_magnitudes_rank_by_index():
    assert percentile_rows(np.array([2.0, -1.0, 1.0, -2.0]), 0, num_percentiles=4).tolist() == [1, 2, 0, 3]


def test_a_sample_holds_magnitudes_and_norms_of_its_rows(small_mlp):
    operator, weights, hessian = small_mlp.operator(), small_mlp.point().numpy(), small_mlp.hessian().numpy()
    sample = sample_row_norms(operator, weights, 1, num_percentiles=20)
    rows = sample.norms.rows
    assert np.array_equal(sample.magnitudes, np.abs(weights[rows]))
    assert (np.diff(sample.magnitudes) >= 0).all()
    np.testing.assert_allclose(sample.norms.l1_norms, np.abs(hessian[rows]).sum(axis=1), rtol=1e-9, atol=1e-12)
    assert operator.num_matvecs == 20


def test_calls_that_cannot_work_are_refused():
    operator = MatrixOperator(torch.eye(3))
    with pytest.raises(ValueError, match="Row 3 is out of range"):
        row_l1_norms(operator, [0, 3])
    with pytest.raises(ValueError, match="Row -1 is out of range"):
        row_l1_norms(operator, [-1])
    with pytest.raises(ValueError, match="whole"):
        row_l1_norms(operator, [0.5])
    with pytest.raises(ValueError, match="block_size=0"):
        row_l1_norms(operator, [0], block_size=0)
    with pytest.raises(ValueError, match="num_percentiles=100"):
        percentile_rows(np.ones(99), 0)
    with pytest.raises(ValueError, match="Expected"):
        sample_row_norms(operator, np.ones(4), 0, num_percentiles=2)
