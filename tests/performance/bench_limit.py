"""Time to the sparsity limit: to a tolerance, against 128 fixed steps of PyHessian. Run: make benchmark-limit

Both are held against a reference in float64, which takes hours and is kept: see tests/performance/reference.py.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.curvature.operators import CountedOperator
from suite.curvature.quadrature import Quadrature, SpectralMeasure
from suite.limits.gaussian_width import gaussian_width_limit
from suite.limits.removal import MagnitudeOrder
from suite.measure import Effort, measure_limits
from suite.network import prunable_weights
from suite.networks.sources import MemoryNetwork
from tests.performance.interleaved import CLOCKS, Result, Seconds, environment, interleaved, ratio
from tests.performance.learnable import images, trained
from tests.performance.reference import NUM_PROBES, NUM_STEPS, reference, stored_probes

FOLDER = Path("runs/benchmark")
PEER_STEPS = 128
OURS, PEER = "espalier", "PyHessian"
COLUMNS = ["", "PyHessian takes", "error of espalier (points)", "error of PyHessian (points)", "products of espalier"]
TITLE = "Time to the sparsity limit."
TEXT = (
    "The published limit (gaussian_width) of a network trained with an L1 penalty: espalier to a stated tolerance, and "
    "PyHessian with one probe of 128 steps over all examples, the published recipe. Errors, in points of sparsity, are "
    "against {probes} probes of {steps} steps in float64, over all examples. {shares}"
)


@contextmanager
def timed_products() -> Iterator[dict[int, list[float]]]:
    """Within, note the seconds of every product by the number of its examples."""
    spent: dict[int, list[float]] = defaultdict(list)
    untimed = CountedOperator.matmat

    def timed(operator: Any, vectors: Tensor) -> Tensor:
        begin_s = time.perf_counter()
        products = untimed(operator, vectors)
        spent[operator.num_examples].append(time.perf_counter() - begin_s)
        return products

    CountedOperator.matmat = timed  # type: ignore[method-assign]
    try:
        yield spent
    finally:
        CountedOperator.matmat = untimed  # type: ignore[method-assign]


def peer_measure(model: nn.Module, inputs: Tensor, targets: Tensor, num_steps: int) -> SpectralMeasure:
    """Return PyHessian's density of one probe as a measure; torch.eig, which it calls, is given back to torch."""
    from pyhessian import hessian

    torch.eig = _symmetric_eig

    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for weight in prunable_weights(model).values():
        weight.requires_grad_(True)
    torch.manual_seed(0)
    computer = hessian(model, functional.cross_entropy, data=(inputs, targets), cuda=False)
    nodes, masses = computer.density(iter=num_steps, n_v=1)
    rule = Quadrature(torch.tensor(nodes[0]).double().numpy(), torch.tensor(masses[0]).double().numpy())
    return SpectralMeasure((rule,))


def _symmetric_eig(matrix: Tensor, eigenvectors: bool) -> tuple[Tensor, Tensor]:
    """Return eigenvalues as columns of real and imaginary parts, and eigenvectors, as torch.eig did."""
    assert eigenvectors
    values, vectors = torch.linalg.eigh(matrix)
    return torch.stack([values, torch.zeros_like(values)], dim=1), vectors


def shares(spent: dict[int, list[float]], seconds: float) -> str:
    """Say where the time of one search went."""
    parts = [
        f"{sum(each) / seconds:.0%} in {len(each)} products over {num_examples:,} examples"
        for num_examples, each in sorted(spent.items())
        if len(each) > 1
    ]
    left = 1 - sum(sum(each) for each in spent.values()) / seconds
    return f"The time of espalier went: {', '.join(parts)}; {left:.0%} in re-orthogonalisation, rules and loading."


def measure(chosen: argparse.Namespace) -> Result:
    """Run both in turn, hold them against the reference, and return the table."""
    inputs, targets = images(chosen.examples)
    model = trained("fc5", inputs, targets, chosen.folder, chosen.epochs)
    source = MemoryNetwork.of(model, inputs, targets)
    order, epsilon = MagnitudeOrder.of(source.network.weights()), source.network.loss_tolerance_nats()
    found: dict[str, Any] = {}

    def ours() -> None:
        begin_s = time.perf_counter()
        with timed_products() as spent:
            found[OURS] = measure_limits(
                source, Effort(), loss_tolerance_nats=epsilon, tolerance=chosen.tolerance
            ).values
        found["shares"] = shares(spent, time.perf_counter() - begin_s)

    def peer() -> None:
        found[PEER] = peer_measure(model, inputs, targets, chosen.peer_steps)

    seconds: Seconds = interleaved({OURS: ours, PEER: peer}, chosen.rounds, clock=CLOCKS[chosen.clock], warm_up=False)

    def limit(spectrum: SpectralMeasure) -> float:
        return gaussian_width_limit(spectrum, order, epsilon, curvature="abs").sparsity_limit

    probes = stored_probes(model, chosen.steps)[: chosen.probes] if chosen.stored else list(range(chosen.probes))
    exact = limit(reference(model, MemoryNetwork.of(model, inputs, targets, "float64"), probes, chosen.steps))
    errors = {OURS: abs(found[OURS]["gaussian_width"]["sparsity_limit"] - exact), PEER: abs(limit(found[PEER]) - exact)}
    row = [f"FC5, {chosen.examples:,} images, tolerance {chosen.tolerance:g}", f"{ratio(seconds, PEER, OURS)}×"]
    row += [f"{100 * errors[name]:.4f}" for name in (OURS, PEER)] + [str(found[OURS]["num_matvecs"])]
    print(*row, sep=" | ")
    text = TEXT.format(probes=len(probes), steps=chosen.steps, shares=found["shares"])
    details = {"seconds": seconds, "errors": errors, "reference": exact, "values": found[OURS]}
    place = environment(["torch", "pyhessian"], chosen.threads) | {"clock": chosen.clock}
    return Result("limit", TITLE, text, COLUMNS, [row], place, details | {"loss_tolerance_nats": epsilon})


def main(arguments: list[str] | None = None) -> None:
    """Measure and write results/limit.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--tolerance", type=float, default=0.005)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: for a machine that others use too")
    parser.add_argument("--probes", type=int, default=NUM_PROBES, help="of the reference")
    parser.add_argument("--steps", type=int, default=NUM_STEPS, help="of the reference")
    parser.add_argument("--stored", action="store_true", help="take what probes of the reference there are")
    parser.add_argument("--peer-steps", type=int, default=PEER_STEPS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--out", type=Path, help="folder of the result; default: results")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    result = measure(chosen)
    print(result.write(chosen.out) if chosen.out else result.write())


if __name__ == "__main__":
    main()
