"""Time to the sparsity limit: to a tolerance, against 128 fixed steps of PyHessian. Run: make benchmark-limit

Both are held against a reference of several probes of 256 steps in float64, which takes hours and is kept between runs.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.cells._network import MemoryNetwork
from suite.curvature.growing_runs import growing_inline_map
from suite.curvature.probes import ProbeRequest
from suite.curvature.quadrature import Quadrature, SpectralMeasure, measure_of_tridiagonals
from suite.curvature.slq import slq
from suite.limits.gaussian_width import gaussian_width_limit
from suite.limits.removal import MagnitudeOrder
from suite.measure import Effort, measure_limits
from suite.network import prunable_weights
from tests.performance.interleaved import Result, environment
from tests.performance.learnable import images, trained, weights_digest

FOLDER = Path("runs/benchmark")
REFERENCE_PROBES, REFERENCE_STEPS, PEER_STEPS = 4, 256, 128
TITLE = "Time to the sparsity limit."
TEXT = (
    "The published limit (gaussian_width) of a trained network: espalier to a stated tolerance, and PyHessian with one "
    "probe of 128 steps over all examples, the published recipe. Errors are against a reference in float64 (probes and "
    "steps in the JSON). One run each, one after the other."
)


def reference(source: MemoryNetwork, digest: str, num_probes: int, num_steps: int, folder: Path) -> SpectralMeasure:
    """Return the reference's spectral measure, computed once per network; a kill before its end loses it."""
    path = folder / f"reference-{digest[:16]}-{num_probes}x{num_steps}.json"
    if path.exists():
        runs = json.loads(path.read_text())
        return measure_of_tridiagonals((run["diagonal"], run["off_diagonal"]) for run in runs)
    requests = [ProbeRequest(1, index, "rademacher", num_steps) for index in range(num_probes)]
    with growing_inline_map() as kept:
        begin_s = time.perf_counter()
        results = slq(
            source,
            requests,
            map=kept,
            progress=lambda done, total: print(f"reference: {done} of {total}, {time.perf_counter() - begin_s:.0f} s"),
        )
    runs = [
        {"diagonal": run.tridiagonal.diagonal.tolist(), "off_diagonal": run.tridiagonal.off_diagonal.tolist()}
        for run in results
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(runs))
    return measure_of_tridiagonals((run["diagonal"], run["off_diagonal"]) for run in runs)


def peer_measure(model: nn.Module, inputs: Tensor, targets: Tensor, num_steps: int) -> tuple[SpectralMeasure, float]:
    """Return PyHessian's density of one probe as a measure, and the seconds that it took."""
    from pyhessian import hessian

    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for weight in prunable_weights(model).values():
        weight.requires_grad_(True)
    torch.manual_seed(0)
    begin_s = time.perf_counter()
    computer = hessian(model, functional.cross_entropy, data=(inputs, targets), cuda=False)
    nodes, masses = computer.density(iter=num_steps, n_v=1)
    seconds = time.perf_counter() - begin_s
    rule = Quadrature(torch.tensor(nodes[0]).double().numpy(), torch.tensor(masses[0]).double().numpy())
    return SpectralMeasure((rule,)), seconds


def measure(chosen: argparse.Namespace) -> tuple[list[list[str]], dict[str, Any]]:
    """Run both, hold them against the reference, and return the table's rows and the details."""
    inputs, targets = images(chosen.examples)
    model = trained("fc5", inputs, targets, chosen.folder, chosen.epochs)
    source, double = (MemoryNetwork.of(model, inputs, targets, dtype) for dtype in ("float32", "float64"))
    order = MagnitudeOrder.of(source.network.weights())
    epsilon = source.network.loss_tolerance_nats()
    begin_s = time.perf_counter()
    found = measure_limits(source, Effort(), loss_tolerance_nats=epsilon, tolerance=chosen.tolerance)
    ours_s = time.perf_counter() - begin_s
    peer, peer_s = peer_measure(model, inputs, targets, chosen.peer_steps)

    def limit(spectrum: SpectralMeasure) -> float:
        return gaussian_width_limit(spectrum, order, epsilon, curvature="abs").sparsity_limit

    exact = limit(reference(double, weights_digest(model), chosen.probes, chosen.steps, chosen.folder))
    ours = found.values["gaussian_width"]["sparsity_limit"]
    errors = {"espalier": abs(ours - exact), "PyHessian": abs(limit(peer) - exact)}
    row = [f"FC5, {chosen.examples} images, tolerance {chosen.tolerance:g}", f"{peer_s / ours_s:.1f}×"]
    row += [f"{100 * errors[name]:.2f}" for name in errors]
    seconds = {"espalier": ours_s, "PyHessian": peer_s}
    details = {"seconds": seconds, "errors": errors, "reference": exact, "values": found.values, "epsilon": epsilon}
    return [row], details | {"reference_probes": chosen.probes, "reference_steps": chosen.steps}


def main(arguments: list[str] | None = None) -> None:
    """Measure and write results/limit.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--tolerance", type=float, default=0.005)
    parser.add_argument("--probes", type=int, default=REFERENCE_PROBES, help="of the reference")
    parser.add_argument("--steps", type=int, default=REFERENCE_STEPS, help="of the reference")
    parser.add_argument("--peer-steps", type=int, default=PEER_STEPS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    rows, details = measure(chosen)
    columns = ["", "espalier is faster by", "error of espalier (points)", "error of PyHessian (points)"]
    found = environment(["torch", "pyhessian"], chosen.threads)
    print(*rows[0], sep=" | ")
    Result("limit", TITLE, TEXT, columns, rows, found, details).write()


if __name__ == "__main__":
    main()
