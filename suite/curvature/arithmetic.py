"""The arithmetic of products: which roundings they may make, and how much those change a product."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from suite.curvature.kernels import Kernels
from suite.curvature.symmetric import SymmetricOperator

Operands = Literal["full", "tf32", "bfloat16"]


# torch.compile is no choice of execution. Of a forward pass alone it has no second derivative. Whole products compile
# with fullgraph=True where batch norms are written as scales and shifts, and then take, of ours (one thread, CPU time
# of a busy machine; CPU seconds to compile): FC5, 2,000 images: Hessian 0.96 (9 s, and what its workers took), Gauss-
# Newton 1.41; ResNet-20, 64 images: 1.26 and 0.76 (40 s); ResNet-18, 16 images: 1.22 (38 s). So the Hessian gains
# nothing, and the Gauss-Newton matrix of ResNet-20 after some 200 products of that size. Measured anew by
# tests/performance/bench_execution.py.
@dataclass(frozen=True)
class Execution:
    """How products are computed: changes their rounding, time and memory, never what they mean.

    Attributes:
        operands: what operands of convolutions and linear layers are rounded to before they are multiplied: "full":
            nothing; "tf32" (CUDA devices): 10 bits of mantissa, sums in float32; "bfloat16": 7 bits, sums in float32,
            results again 7 bits. All else, and the vectors, stay float32. Ask rounding_bias what it does to a network:
            bfloat16 changed products of trained FC5 and ResNet-20 by 9 % and their predicted limits by 3 to 4 points,
            so it is for a look at a spectrum and not for a limit (tests/performance/bench_execution.py).
        fast_kernels: second derivatives by suite.curvature.kernels; False: by torch, for comparison.
        channels_last: keep images and filters in the memory order (n, h, w, c).
        keep_graphs: keep what does not depend on the vector from product to product: a third of the time of a lone
            matvec, for the memory of the graphs of all examples at once (see suite.curvature.memory).
    """

    operands: Operands = "full"
    fast_kernels: bool = True
    channels_last: bool = True
    keep_graphs: bool = False

    def kernels(self) -> Kernels | None:
        """Return the kernels that the network's layers run on; None: torch's own."""
        if self.operands == "bfloat16":
            return Kernels(torch.bfloat16)
        return Kernels() if self.fast_kernels else None


def check_operands(operands: str, dtype: torch.dtype, device: torch.device) -> None:
    """Refuse a rounding of operands that does not exist or that this device and type do not have.

    Raises:
        ValueError: it is unknown, or the type is not float32, or TF32 is asked for away from a CUDA device.
    """
    if operands not in get_args(Operands):
        raise ValueError(f"No operands named {operands!r}. Known: {', '.join(get_args(Operands))}.")
    if operands != "full" and dtype != torch.float32:
        raise ValueError(f'operands="{operands}" round float32, and dtype is {dtype}. Expected: torch.float32.')
    if operands == "tf32" and device.type != "cuda":
        raise ValueError(f'operands="tf32" need a CUDA device, this is {device}. Expected: "full" or "bfloat16".')


@contextmanager
def tensor_cores(operands: str, device: torch.device) -> Iterator[None]:
    """Within, let the kernels of a CUDA device round operands to TF32, or forbid it; elsewhere change nothing.

    torch forbids it for matrix products and allows it for convolutions, so "full" must be said for both.
    """
    if device.type != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = operands == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@dataclass(frozen=True)
class RoundingBias:
    """What a coarser arithmetic changes in one product.

    Attributes:
        relative_error: ||H~v - Hv|| / ||Hv||. LIMITS: noise of 1e-3 moved a sparsity limit by 0.002 to 0.006.
        curvature: v'Hv / v'v of the finer operator, its mean eigenvalue as this probe sees it, in its units.
        curvature_bias: v'H~v / v'v less that: the part of the error that does not average out over probes.
    """

    relative_error: float
    curvature: float
    curvature_bias: float

    @property
    def relative_curvature_bias(self) -> float:
        """The bias as a fraction of the curvature."""
        return self.curvature_bias / self.curvature


def rounding_bias(coarse: SymmetricOperator, fine: SymmetricOperator, probe: Tensor) -> RoundingBias:
    """Compare one product in two arithmetics.

    Args:
        coarse: the operator to be judged.
        fine: the same operator in a finer arithmetic, float64 best.
        probe: shape (dim,), not zero; rounded to the type of each operator. Entries +1 and -1 are exact in all.

    Raises:
        ValueError: the operators differ in dimension, or the finer product is zero.

    Cost: one matvec of each.
    """
    if coarse.dim != fine.dim:
        raise ValueError(f"The operators have dimensions {coarse.dim} and {fine.dim}. Expected: the same network.")
    exact = fine.matvec(probe.to(fine.device, fine.dtype)).double().cpu()
    rounded = coarse.matvec(probe.to(coarse.device, coarse.dtype)).double().cpu()
    norm, direction = float(exact.norm()), probe.double().cpu()
    if norm == 0.0:
        raise ValueError(
            "The product is zero, so its rounding has no scale. Expected: a probe that H does not map to 0."
        )
    square = float(direction.dot(direction))
    curvature = float(direction.dot(exact)) / square
    error = rounded - exact
    return RoundingBias(float(error.norm()) / norm, curvature, float(direction.dot(error)) / square)
