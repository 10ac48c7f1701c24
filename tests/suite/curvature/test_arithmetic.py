import pytest
import torch

from suite.curvature.arithmetic import Execution, check_operands, rounding_bias, tensor_cores
from suite.curvature.operators import DiagonalOperator, HessianOperator


def test_bias_of_a_matrix_that_is_wrong_by_known_numbers():
    fine = DiagonalOperator(torch.tensor([3.0, 4.0], dtype=torch.float64))
    coarse = DiagonalOperator(torch.tensor([3.0, 4.5]))
    found = rounding_bias(coarse, fine, torch.tensor([1, -1]))
    assert found.relative_error == pytest.approx(0.1)
    assert found.curvature == pytest.approx(3.5)
    assert found.curvature_bias == pytest.approx(0.25)
    assert found.relative_curvature_bias == pytest.approx(0.25 / 3.5)


def test_a_coarser_arithmetic_has_a_larger_error(network):
    exact = network.operator()
    probe = torch.randint(0, 2, (exact.dim,), generator=torch.Generator().manual_seed(0)) * 2 - 1
    errors = []
    for operands in ("full", "bfloat16"):
        execution = Execution(operands=operands)
        coarse = HessianOperator(network.model, network.names, network.batches, execution=execution)
        errors.append(rounding_bias(coarse, exact, probe).relative_error)
    assert errors[0] < 1e-5 < errors[1] < 0.5


def test_products_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="dimensions 2 and 3"):
        rounding_bias(DiagonalOperator(torch.ones(2)), DiagonalOperator(torch.ones(3)), torch.ones(2))
    with pytest.raises(ValueError, match="product is zero"):
        rounding_bias(DiagonalOperator(torch.ones(2)), DiagonalOperator(torch.zeros(2)), torch.ones(2))


@pytest.mark.parametrize(
    ("operands", "dtype", "message"),
    [
        ("float8", torch.float32, "No operands named 'float8'. Known: full, tf32, bfloat16"),
        ("bfloat16", torch.float64, r"Expected: torch\.float32"),
        ("tf32", torch.float32, "need a CUDA device"),
    ],
)
def test_arithmetic_that_does_not_exist_is_refused(operands, dtype, message):
    with pytest.raises(ValueError, match=message):
        check_operands(operands, dtype, torch.device("cpu"))


def test_switches_of_tensor_cores_are_put_back():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    for operands in ("full", "tf32"):
        with tensor_cores(operands, torch.device("cuda")):
            assert matmul.allow_tf32 == cudnn.allow_tf32 == (operands == "tf32")
        assert (matmul.allow_tf32, cudnn.allow_tf32) == before
