import math

import pytest
import torch

from suite.curvature.reductions import dot, norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dim", [1, 1000, 2**16, 200_001])
def test_sums_are_as_exact_as_float64(dim, dtype):
    generator = torch.Generator().manual_seed(dim)
    first, second = (torch.randn(dim, generator=generator).to(dtype) for _ in range(2))
    products = [one * other for one, other in zip(first.tolist(), second.tolist(), strict=True)]
    scale = math.fsum(abs(each) for each in products)
    assert abs(dot(first, second) - math.fsum(products)) <= 1e-14 * scale
    squared = math.fsum(one * one for one in first.tolist())
    assert norm(first) == pytest.approx(math.sqrt(squared), rel=1e-14)


def test_vectors_that_carry_gradients_are_taken():
    assert dot(torch.ones(3, requires_grad=True), torch.full((3,), 2.0)) == 6.0


def test_small_parts_of_a_long_sum_are_not_lost():
    """In float32 a sum of 2^25 ones stops at 2^24 where it is formed one by one."""
    ones = torch.ones(2**25 + 3)
    assert dot(ones, ones) == 2**25 + 3


@pytest.mark.parametrize("entry", [math.nan, math.inf])
def test_an_entry_that_is_not_finite_shows(entry):
    vector = torch.ones(100_000)
    vector[70_000] = entry
    assert not math.isfinite(dot(torch.ones(100_000), vector))
    assert not math.isfinite(norm(vector))


def test_vectors_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="65536 and 65537 entries"):
        dot(torch.ones(2**16), torch.ones(2**16 + 1))
