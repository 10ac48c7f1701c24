"""Hessian products beside PyHessian and curvlinops, in gradients of the same data. Run: make benchmark"""

import argparse
import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from suite.curvature.arithmetic import Execution
from tests.performance.contenders import Products, Workload, curvlinops, disagreement, espalier, pyhessian, workload
from tests.performance.interleaved import CLOCKS, Result, Seconds, Summary, environment, interleaved, ratio

CASES = {"fc5": (2000, 4), "resnet20": (128, 4), "resnet18": (32, 4)}  # examples, probes
OURS, KEPT, CONTIGUOUS = "espalier", "espalier, graphs kept", "espalier, contiguous"
PEERS = ("PyHessian", "PyHessian, one batch", "curvlinops")
EXACT = 1e-9  # of a float64 product; float32 is compared at ROUNDED, because activations near a ReLU's kink may flip
ROUNDED = 1e-2
COLUMNS = (
    "espalier (gradients)",
    "espalier, graphs kept (gradients)",
    "PyHessian takes",
    "PyHessian with its graph kept takes, of ours with graphs kept",
    "curvlinops takes",
)
TITLE = "Hessian-vector products."
TEXT = (
    "Time per product with several probes at once, in gradients of the same data (float32, torch, contiguous), as the "
    "median over interleaved rounds (and quartiles); and how many times as long the peers took. PyHessian does its "
    "first backward pass once per product where it is given a loader, and once and for all where it is given one "
    "batch, as espalier does for all data whose graphs fit into memory. All products agreed in float64 before anything "
    "was timed."
)


def contenders(work: Workload) -> dict[str, Products]:
    """Return every way to the same products."""
    found = {OURS: espalier(work), KEPT: espalier(work, Execution(keep_graphs=True))}
    if any(weight.ndim == 4 for weight in work.weights.values()):
        found[CONTIGUOUS] = espalier(work, Execution(channels_last=False))
    found["PyHessian"] = pyhessian(work)
    found["PyHessian, one batch"] = pyhessian(work, keep_graph=True)
    found["curvlinops"] = curvlinops(work)
    return found


def check(found: dict[str, Products], vectors: torch.Tensor, bound: float) -> dict[str, float]:
    """Compare all contenders' products with ours.

    Raises:
        RuntimeError: one differs by more than the bound; a wrong product is not worth timing.
    """
    products = {name: products(vectors).detach() for name, products in found.items()}
    errors = {name: disagreement(each, products[OURS]) for name, each in products.items()}
    for name, error in errors.items():
        if not error < bound:
            raise RuntimeError(f"{name} differs from {OURS} by {error:.1e}. Expected: less than {bound:.0e}.")
    return errors


def measure(
    name: str, num_examples: int, num_probes: int, num_rounds: int, clock: Callable[[], float]
) -> tuple[Seconds, dict[str, float]]:
    """Check and time one network; return seconds by contender and disagreements in float64."""
    work = workload(name, num_examples)
    few = Workload(copy.deepcopy(work.model), work.inputs, work.targets).first(4)
    dim = sum(weight.numel() for weight in work.weights.values())
    vectors = torch.randn((num_probes, dim), generator=torch.Generator().manual_seed(1)).t()
    errors = check(contenders(few), vectors[:, :1].double(), EXACT)
    found = contenders(work)
    check(found, vectors, ROUNDED)
    timed: dict[str, Any] = {"gradient": work.gradient}
    rows = vectors.contiguous()  # the order that curvlinops works in; all others take whole probes
    for each, products in found.items():
        timed[each] = partial(products, rows if each == "curvlinops" else vectors)
    return interleaved(
        timed, num_rounds, clock=clock, warm_up=False
    ), errors  # the check has warmed all but the gradient up


def row(name: str, num_examples: int, num_probes: int, seconds: Seconds) -> list[str]:
    """Return one line of the table."""
    ours = [str(ratio(seconds, each, "gradient", num_probes)) for each in (OURS, KEPT)]
    slower = [f"{ratio(seconds, peer, ours_too)}×" for peer, ours_too in zip(PEERS, (OURS, KEPT, OURS), strict=True)]
    return [f"{name}, {num_examples} images, {num_probes} probes", *ours, *slower]


def ratios(seconds: Seconds, num_probes: int) -> dict[str, Summary]:
    """Return every contender's time per probe in gradients, and every peer's in ours."""
    found = {f"{name} / gradient": ratio(seconds, name, "gradient", num_probes) for name in seconds}
    return found | {f"{peer} / {OURS}": ratio(seconds, peer, OURS) for peer in PEERS}


def main(arguments: list[str] | None = None) -> None:
    """Measure all networks and write results/products.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the images of each case")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: for a machine that others use too")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    rows, details = [], {}
    for name in chosen.cases:
        num_examples, num_probes = CASES[name]
        num_examples = max(1, round(chosen.fraction * num_examples))
        seconds, errors = measure(name, num_examples, num_probes, chosen.rounds, CLOCKS[chosen.clock])
        rows.append(row(name, num_examples, num_probes, seconds))
        print(*rows[-1], sep=" | ", flush=True)
        details[name] = {"seconds": seconds, "ratios": ratios(seconds, num_probes), "disagreement": errors}
    columns = ["", *COLUMNS]
    found = environment(["torch", "pyhessian", "curvlinops-for-pytorch"], chosen.threads)
    found["clock"] = chosen.clock
    Result("products", TITLE, TEXT, columns, rows, found, details).write()


if __name__ == "__main__":
    main()
