"""ResNet-50 on a GPU: products per second, the share of the chip's measured matrix throughput, and peak memory.

Run on the machine to be measured, without Ray: python -m tests.performance.bench_gpu. `--smoke` takes sizes that a CPU
does in seconds, so that the program itself can be tested anywhere; its numbers are not written among the results.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from suite.curvature.arithmetic import Execution, Operands, RoundingBias, rounding_bias, tensor_cores
from suite.curvature.memory import MemoryPlan, memory_plan
from suite.curvature.operators import HessianOperator
from tests.performance.contenders import Workload, disagreement, pyhessian, workload
from tests.performance.interleaved import RESULTS, Result, environment, interleaved, summarised

FEW = 4  # examples of a comparison with float64 or with the peer
TITLE = "ResNet-50 on a GPU."
TEXT = (
    "Hessian-vector products of the mean loss, 3x64x64 images, 200 classes, one vector at a time. An example's product "
    "is one forward and one backward pass and six convolutions per layer; its share of the chip is of the throughput "
    "of a large matrix product in the same arithmetic, measured beside it. Products per second are medians (and "
    "quartiles); no graph is kept between products; memory is the allocator's peak beside what was planned. Error and "
    f"bias are against float64 on {FEW} images. PyHessian computes in float32 with TF32 forbidden, as espalier's first "
    "row does."
)
ROUNDED = 1e-2  # float32 against float32: activations near a ReLU's kink may flip
MULTIPLIES_PER_PRODUCT = 8  # per weight use: forward, input gradient, and the six of the second pass


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    model: str
    input_shape: tuple[int, int, int]
    num_classes: int
    num_examples: int
    matrix: int  # rows of the square matrices whose product stands for the chip's throughput
    num_rounds: int


FULL = Sizes("resnet50", (3, 64, 64), 200, 8192, 8192, 5)
SMOKE = Sizes("resnet20", (3, 8, 8), 5, 4, 128, 1)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write results/gpu.json (`--smoke`: only what --out names)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--smoke", action="store_true", help="small sizes, on the CPU")
    parser.add_argument("--workers", type=int, default=0, choices=[0], help="0: this process, no Ray")
    parser.add_argument("--machine", help="its name in words; default: what it says of itself")
    parser.add_argument("--out", type=Path, help="folder of the result")
    chosen = parser.parse_args(arguments)
    if not chosen.smoke and not torch.cuda.is_available():
        raise SystemExit("This machine has no CUDA device. Expected: one, or --smoke.")
    result = measure(SMOKE if chosen.smoke else FULL, "cpu" if chosen.smoke else "cuda", chosen.machine)
    for row in result.rows:
        print(*row, sep=" | ")
    if chosen.out or not chosen.smoke:
        print(result.write(chosen.out or RESULTS))


def measure(sizes: Sizes, device: str, machine: str | None = None) -> Result:
    """Return one row per arithmetic, and PyHessian's where it is installed."""
    work = workload(sizes.model, sizes.num_examples, sizes.input_shape, sizes.num_classes, device)
    plan = batch_plan(work)
    rows, details = [], {}
    arithmetics: list[Operands] = ["full", "tf32", "bfloat16"] if device == "cuda" else ["full", "bfloat16"]
    for operands in arithmetics:
        found = one_arithmetic(work, operands, plan, sizes)
        details[operands] = found
        bias: RoundingBias = found["rounding"]
        rows.append(
            [
                f"espalier, {'float32' if operands == 'full' else operands}",
                rate(found["seconds"]),
                f"{100 * found['chip_fraction']:.0f} %",
                printed(found["peak_gib"]),
                printed(found["planned_gib"]),
                f"{bias.relative_error:.1e}",
                f"{bias.relative_curvature_bias:+.1e}",
            ]
        )
    if importlib.util.find_spec("pyhessian"):
        details["pyhessian"] = found = peer(work, plan, sizes)
        rows.append(["PyHessian, float32", rate(found["seconds"]), "", printed(found["peak_gib"]), "", "", ""])
    columns = ["", "products/s", "of the chip", "peak GiB", "planned GiB", "error of Hv", "bias of v'Hv"]
    place = environment(["torch"], torch.get_num_threads())
    place["machine"] = machine or (torch.cuda.get_device_name() if device == "cuda" else place["machine"])
    details |= {"plan": str(plan), "examples": sizes.num_examples, "examples_per_batch": plan.examples_per_batch}
    return Result("gpu", TITLE, TEXT, columns, rows, place, details)


def batch_plan(work: Workload) -> MemoryPlan:
    """Let the engine choose the batch; on a device within what is free now. No graph is kept: none is planned."""
    operator = HessianOperator(work.model, list(work.weights), [(work.inputs[:2], work.targets[:2])])
    free = int(0.8 * torch.cuda.mem_get_info()[0]) if work.inputs.is_cuda else None
    data_bytes = work.inputs.nbytes
    return memory_plan(operator, len(work.targets), data_bytes=data_bytes, budget_bytes=free, may_keep_graphs=False)


def one_arithmetic(work: Workload, operands: Operands, plan: MemoryPlan, sizes: Sizes) -> dict[str, Any]:
    """Time products, compare their rounding with float64 on a few images, and relate them to the chip's throughput."""
    execution = Execution(operands=operands)
    names = list(work.weights)
    operator = HessianOperator(work.model, names, batches(work, plan.examples_per_batch), execution=execution)
    probe = torch.randint(0, 2, (operator.dim,), generator=torch.Generator().manual_seed(1)) * 2 - 1
    few = [(work.inputs[:FEW], work.targets[:FEW])]
    coarse = HessianOperator(work.model, names, few, execution=execution)
    rounding = rounding_bias(coarse, HessianOperator(work.model, names, few, torch.float64), probe)
    del coarse  # its weights are not part of the peak
    vector = probe.to(operator.device, operator.dtype)
    seconds, peak_gib = timed(lambda: operator.matvec(vector), work.inputs.is_cuda, sizes.num_rounds)
    flops = 2 * MULTIPLIES_PER_PRODUCT * multiplies(work) * len(work.targets)
    chip = matrix_flops_per_s(sizes.matrix, operands, work.inputs.device)
    return {
        "seconds": seconds,
        "products_per_s": summarised([1 / each for each in seconds]).median,
        "chip_fraction": flops / summarised(seconds).median / chip,
        "matrix_flops_per_s": chip,
        "peak_gib": peak_gib,
        "planned_gib": plan.peak_bytes / 2**30,
        "rounding": rounding,
    }


def peer(work: Workload, plan: MemoryPlan, sizes: Sizes) -> dict[str, Any]:
    """Time PyHessian on the same batches, once its products have agreed with ours on a few images; TF32 forbidden.

    Raises:
        RuntimeError: they do not agree.
    """
    few = Workload(work.model, work.inputs[:FEW], work.targets[:FEW])
    ours = HessianOperator(work.model, list(work.weights), [(few.inputs, few.targets)])
    vector = torch.randn((1, ours.dim), generator=torch.Generator().manual_seed(1)).t().to(ours.device)
    with tensor_cores("full", work.inputs.device):  # torch lets convolutions round unless told not to
        error = disagreement(pyhessian(few)(vector), ours.matmat(vector))
    del ours
    if not error < ROUNDED:
        raise RuntimeError(f"PyHessian differs from espalier by {error:.1e}. Expected: less than {ROUNDED:.0e}.")
    with tensor_cores("full", work.inputs.device):
        products = pyhessian(work, batch_size=plan.examples_per_batch)
        seconds, peak_gib = timed(lambda: products(vector), work.inputs.is_cuda, sizes.num_rounds)
    return {
        "seconds": seconds,
        "products_per_s": summarised([1 / each for each in seconds]).median,
        "peak_gib": peak_gib,
    }


def timed(product: Callable[[], object], on_gpu: bool, num_rounds: int) -> tuple[list[float], float | None]:
    """Return seconds per round, and the device's peak memory in GiB (None on the CPU)."""
    if not on_gpu:
        return interleaved({"product": product}, num_rounds)["product"], None

    def finished() -> None:
        product()
        torch.cuda.synchronize()

    torch.cuda.reset_peak_memory_stats()
    return interleaved({"product": finished}, num_rounds)["product"], torch.cuda.max_memory_allocated() / 2**30


def matrix_flops_per_s(size: int, operands: Operands, device: torch.device) -> float:
    """Return what the chip does in a large square matrix product of this arithmetic."""
    dtype = torch.bfloat16 if operands == "bfloat16" else torch.float32
    left = torch.randn((size, size), device=device).to(dtype)
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, operands == "tf32"
    num_repeats = 20 if device.type == "cuda" else 1
    begin_s = 0.0
    for index in range(num_repeats + 1):
        if index == 1:  # the first warms up
            _wait(device)
            begin_s = time.perf_counter()
        left @ left
    _wait(device)
    matmul.allow_tf32 = before
    return 2 * size**3 * num_repeats / (time.perf_counter() - begin_s)


def multiplies(work: Workload) -> int:
    """Count the multiplications of one example's forward pass in convolutions and linear layers."""
    counts: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = module.get_parameter("weight")
        counts.append(weight.numel() * output[0].numel() // output.shape[1])

    layers = [module for module in work.model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        work.model(work.inputs[:1])
    for handle in handles:
        handle.remove()
    return sum(counts)


def batches(work: Workload, size: int) -> list[tuple[Tensor, Tensor]]:
    """Split the data."""
    return list(zip(work.inputs.split(size), work.targets.split(size), strict=True))


def rate(seconds: list[float]) -> str:
    """Return products per second as the table shows them."""
    found = summarised([1 / each for each in seconds])
    return f"{found.median:.3g} ({found.lower_quartile:.3g} to {found.upper_quartile:.3g})"


def printed(gib: float | None) -> str:
    """Return a peak as the table shows it."""
    return "" if gib is None else f"{gib:.1f}"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
