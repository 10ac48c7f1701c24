"""Every choice of how a product is computed, relative to the default. Run: make benchmark

Two threads and wall time on a machine of one's own; `--clock cpu --threads 1` on one that others use too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from suite.curvature.arithmetic import Execution, RoundingBias, rounding_bias
from suite.curvature.lanczos import lanczos
from suite.curvature.operators import HessianOperator
from suite.curvature.probes import ProbeRequest, start_vector
from suite.curvature.quadrature import measure_of_tridiagonals
from suite.limits.gaussian_width import gaussian_width_limit
from suite.limits.removal import MagnitudeOrder
from suite.network import prunable_weights
from tests.performance.compiled import COMPILED, HESSIAN_WAYS, OURS, WAYS
from tests.performance.contenders import workload
from tests.performance.interleaved import CLOCKS, Result, Seconds, environment, interleaved, ratio, summarised
from tests.performance.learnable import images, trained

CASES = {"fc5": 500, "resnet20": 64, "resnet18": 16}  # examples of one product
TRAINING = {"fc5": (1000, 10), "resnet20": (512, 15), "resnet18": (128, 6)}  # examples, epochs
DEFAULT = "default"
EXECUTIONS = {
    DEFAULT: Execution(),
    "torch's kernels": Execution(fast_kernels=False),
    "contiguous": Execution(channels_last=False),
    "graphs kept": Execution(keep_graphs=True),
    "bfloat16": Execution(operands="bfloat16"),
}
AMORTISED = 100  # products over which the time to compile is spread
EPSILON_NATS = 0.01
FOLDER = Path("runs/benchmark")
TITLE = "Choices of execution."
TEXT = (
    "Time of one Hessian-vector product relative to the default's (median over interleaved rounds, and quartiles). "
    "Compiled: the fastest Hessian product that torch.compile gives with fullgraph=True, without its time to compile, "
    f"and with that spread over {AMORTISED} products; compiling the forward pass alone has no second derivative. The "
    "last columns: the relative error of Hv in bfloat16 with random weights and after training, the bias of v'Hv after "
    f"it, and how far bfloat16 moves the predicted limit (gaussian_width at {EPSILON_NATS:g} nats, one probe, the same "
    "steps and examples)."
)
COLUMNS = (
    *list(EXECUTIONS)[1:],
    "compiled",
    f"compiled, over {AMORTISED} products",
    "compiled Gauss-Newton, of ours",
    "bfloat16: error, untrained",
    "error, trained",
    "bias of v'Hv",
    "limit moves by (points)",
)


def timed_executions(name: str, num_examples: int, num_rounds: int, clock: str) -> Seconds:
    """Time one vector's product in every execution."""
    work = workload(name, num_examples)
    batches, names = [(work.inputs, work.targets)], list(work.weights)
    operators = {
        label: HessianOperator(work.model, names, batches, execution=execution)
        for label, execution in EXECUTIONS.items()
    }
    vector = torch.randn(operators[DEFAULT].dim, generator=torch.Generator().manual_seed(1))
    contenders = {label: partial(operator.matvec, vector) for label, operator in operators.items()}
    return interleaved(contenders, num_rounds, clock=CLOCKS[clock])


def compiled_in_a_process(name: str, num_examples: int, way: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Return what tests.performance.compiled prints, begun with an empty cache."""
    settings = [f"--rounds={chosen.rounds}", f"--threads={chosen.threads}", f"--clock={chosen.clock}"]
    command = [sys.executable, "-W", "ignore", "-m", "tests.performance.compiled", name, str(num_examples), way]
    with tempfile.TemporaryDirectory() as cache:
        environment_too = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache}
        ended = subprocess.run([*command, *settings], capture_output=True, text=True, check=False, env=environment_too)
    if ended.returncode != 0:
        return {"error": (ended.stderr.strip().splitlines() or ["no message"])[-1][:200]}
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def compiled_cells(ways: dict[str, dict[str, Any]]) -> list[str]:
    """Return three cells: the fastest compiled Hessian, the same with its compilation, and Gauss-Newton.

    Empty: not tried. Why a way fails is in the JSON.
    """
    works = {way: found for way, found in ways.items() if "seconds" in found}
    hessians = {way: ratio(found["seconds"], COMPILED, OURS) for way, found in works.items() if way in HESSIAN_WAYS}
    cells = ["fails" if ways.keys() & set(HESSIAN_WAYS) else ""] * 2 + ["fails" if "gauss_newton" in ways else ""]
    if hessians:
        best = min(hessians, key=lambda way: hessians[way].median)
        ours_s = summarised(works[best]["seconds"][OURS]).median
        spread = works[best]["compile_s"] / AMORTISED / ours_s
        cells[:2] = [str(hessians[best]), f"{hessians[best].median + spread:.2f}"]
    if "gauss_newton" in works:
        cells[2] = str(ratio(works["gauss_newton"]["seconds"], COMPILED, OURS))
    return cells


def rounding(model: nn.Module, inputs: Tensor, targets: Tensor) -> RoundingBias:
    """Hold a product in bfloat16 against float64."""
    names = list(prunable_weights(model))
    coarse = HessianOperator(model, names, [(inputs, targets)], execution=EXECUTIONS["bfloat16"])
    fine = HessianOperator(model, names, [(inputs, targets)], torch.float64)
    probe = torch.randint(0, 2, (fine.dim,), generator=torch.Generator().manual_seed(1)) * 2 - 1
    return rounding_bias(coarse, fine, probe)


def limit(model: nn.Module, inputs: Tensor, targets: Tensor, execution: Execution, num_steps: int) -> float:
    """Return the predicted limit by one probe."""
    weights = prunable_weights(model)
    operator = HessianOperator(model, list(weights), [(inputs, targets)], execution=execution)
    start = start_vector(ProbeRequest(1, 0, "rademacher", num_steps), operator)
    run = lanczos(operator.matvec, start, num_steps)
    measured = measure_of_tridiagonals([(run.diagonal.tolist(), run.off_diagonal.tolist())])
    order = MagnitudeOrder.of(operator.weights().double().numpy())
    return gaussian_width_limit(measured, order, EPSILON_NATS, curvature="abs").sparsity_limit


def in_bfloat16(name: str, num_examples: int, num_steps: int) -> dict[str, Any]:
    """Return what bfloat16 changes before and after training."""
    work = workload(name, num_examples)
    untrained = rounding(work.model, work.inputs, work.targets)
    inputs, targets = images(TRAINING[name][0])
    model = trained(name, inputs, targets, FOLDER, TRAINING[name][1])
    few = inputs[:num_examples], targets[:num_examples]
    with torch.no_grad():
        accuracy = float((model(inputs[:256]).argmax(dim=1) == targets[:256]).double().mean())
    limits = {label: limit(model, *few, EXECUTIONS[label], num_steps) for label in (DEFAULT, "bfloat16")}
    found: dict[str, Any] = {"untrained": asdict(untrained), "trained": asdict(rounding(model, *few))}
    return found | {"limits": limits, "train_accuracy": accuracy, "steps": num_steps, "training": TRAINING[name]}


def rounding_cells(found: dict[str, Any]) -> list[str]:
    """Return four cells."""
    errors = [f"{found[when]['relative_error']:.1e}" for when in ("untrained", "trained")]
    bias = found["trained"]["curvature_bias"] / found["trained"]["curvature"]
    return [*errors, f"{bias:+.1e}", f"{100 * (found['limits']['bfloat16'] - found['limits'][DEFAULT]):+.2f}"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all networks and write results/execution.json.

    Cost: some ten minutes, most of them in the compiler.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: for a machine that others use too")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS), help="to compile a product")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the images of each case")
    parser.add_argument("--steps", type=int, default=32, help="of Lanczos, for the limit in bfloat16")
    parser.add_argument("--out", type=Path, help="folder of the result; default: among the committed ones")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    rows, details = [], {}
    for name in chosen.cases:
        num_examples = max(1, round(chosen.fraction * CASES[name]))
        print(f"{name}: executions", flush=True)
        seconds = timed_executions(name, num_examples, chosen.rounds, chosen.clock)
        ways = {}
        for way in chosen.ways:
            print(f"{name}: compiled, {way}", flush=True)
            ways[way] = compiled_in_a_process(name, num_examples, way, chosen)
        print(f"{name}: bfloat16 after training", flush=True)
        coarse = in_bfloat16(name, num_examples, chosen.steps)
        relative = [str(ratio(seconds, label, DEFAULT)) for label in list(EXECUTIONS)[1:]]
        rows.append([f"{name}, {num_examples} images", *relative, *compiled_cells(ways), *rounding_cells(coarse)])
        print(*rows[-1], sep=" | ", flush=True)
        details[name] = {"seconds": seconds, "compiled": ways, "bfloat16": coarse}
    found = environment(["torch"], chosen.threads) | {"clock": chosen.clock}
    result = Result("execution", TITLE, TEXT, ["", *COLUMNS], rows, found, details)
    print(result.write(chosen.out) if chosen.out else result.write())


if __name__ == "__main__":
    main()
