"""A curve over 1,000 sparsities, against a copy, a sort and an evaluation per point. Run: make benchmark-sweep

Every round sweeps once, and times the peer at a few random points; its time for all is that of a point times 1,000.
"""

import argparse
import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suite.cells.sweep import Options as SweepOptions
from suite.limits.sweep import Sweep, removed_counts
from suite.measure.sweep import magnitude_sweep
from suite.network import prunable_weights
from suite.networks.loaded import Network
from suite.problem import evaluate
from suite.pruning.masks import keep_top_globally
from suite.splits import Split
from tests.performance.interleaved import CLOCKS, Result, Seconds, environment, interleaved, ratio
from tests.performance.learnable import images, trained

FOLDER = Path("runs/benchmark/sweep")
OURS, PEER = "espalier", "one network per point"
SPLITS = ("train", "test")
COLUMNS = [
    *("", "evaluations of espalier", "one network per point takes"),
    *("largest difference where evaluated", "largest error between, accuracy (points)", "loss (%)"),
]
TITLE = "A curve over 1,000 sparsities."
TEXT = (
    "Loss and accuracy on train and test of a network pruned by magnitude: espalier prunes it in place and evaluates "
    "where the curve bends; the other copies the network, sorts all magnitudes and evaluates at every point. It was "
    "timed at {points} random points in every round, and {factor:g} times that is taken for all. Both evaluate in the "
    "same batches. Errors are against it at {checked} random points of those that espalier interpolated and at all "
    "of the timed ones; differences at {compared} points that both evaluated, over all values of the four curves."
)


class SmallCnn(nn.Sequential):
    """Three strided convolutions with batch normalisation, and a classifier: 33,712 prunable weights."""

    def __init__(self, num_classes: int = 10) -> None:
        """Build it for images of 3 x 32 x 32."""
        layers: list[nn.Module] = []
        for before, after in ((3, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        super().__init__(*layers, nn.Flatten(), nn.Linear(64 * 4 * 4, num_classes))


# The penalty of the other benchmarks leaves FC5 as it is up to 99.8 %: a curve without a fall.
NETWORKS = {"FC5": ("fc5", 1e-4), "small CNN": ("tests.performance.bench_sweep:SmallCnn", 1e-3)}


@dataclass
class Peer:
    """Evaluates one point with a network of its own, as the code of the published curve does, and writes no file."""

    network: Network
    counts: np.ndarray
    seen: dict[int, dict[str, float]] = field(default_factory=dict)

    def at(self, point: int) -> None:
        """Copy the network, sort all magnitudes, zero the smallest, and evaluate train and test."""
        model = copy.deepcopy(self.network.model)
        weights = prunable_weights(model)
        total = sum(weight.numel() for weight in weights.values())
        masks = keep_top_globally({name: weight.detach().abs() for name, weight in weights.items()},
                                  total - int(self.counts[point]))  # fmt: skip
        with torch.no_grad():
            for name, weight in weights.items():
                weight.mul_(masks[name])
        found = {split: evaluate(model, self.network.splits[split]) for split in SPLITS}
        self.seen[point] = {f"{split}_{name}": value for split in SPLITS
                            for name, value in found[split]._asdict().items()}  # fmt: skip


def errors(curve: Sweep, seen: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """Return the largest difference at evaluated points, and the largest error of accuracy and loss at others.

    The error of a loss is a fraction of the true one, or of 0.001 nats where that is more.
    """
    found = {"evaluated": 0.0, "accuracy": 0.0, "loss": 0.0}
    for point, values in seen.items():
        for name, value in values.items():
            error = abs(float(curve.values[name][point]) - value)
            if curve.evaluated[point]:
                found["evaluated"] = max(found["evaluated"], error)
            elif name.endswith("accuracy"):
                found["accuracy"] = max(found["accuracy"], error)
            else:
                found["loss"] = max(found["loss"], error / max(value, 1e-3))
    return found


def network_of(name: str, chosen: argparse.Namespace) -> Network:
    """Return a network trained with an L1 penalty, with splits "train" and "test" of the same prototypes."""
    inputs, targets = images(chosen.examples + chosen.test_examples)
    parts: list[tuple[Tensor, Tensor]] = [
        (inputs[: chosen.examples], targets[: chosen.examples]),
        (inputs[chosen.examples :], targets[chosen.examples :]),
    ]
    spec, l1 = NETWORKS[name]
    model = trained(spec, *parts[0], chosen.folder, chosen.epochs, l1)
    return Network(model, {split: Split(*part) for split, part in zip(SPLITS, parts, strict=True)})


def measure(name: str, chosen: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    """Return the row of one network, and everything that was measured."""
    network = network_of(name, chosen)
    draw = np.random.default_rng(0)
    settings = {
        "accuracy_tolerance": SweepOptions().accuracy_tolerance,
        "loss_tolerance": SweepOptions().loss_tolerance,
    }
    found: dict[str, Sweep] = {}

    def ours() -> None:
        found[OURS] = magnitude_sweep(
            network, num_sparsities=chosen.points, **settings, max_evaluations=chosen.evaluations
        )

    total = sum(weight.numel() for weight in prunable_weights(network.model).values())
    peer = Peer(network, removed_counts(chosen.points, total))

    def theirs() -> None:
        for point in draw.choice(chosen.points, chosen.timed, replace=False):
            peer.at(int(point))

    contenders: dict[str, Callable[[], object]] = {OURS: ours, PEER: theirs}
    seconds: Seconds = interleaved(contenders, chosen.rounds, clock=CLOCKS[chosen.clock], warm_up=False)
    is_evaluated = found[OURS].evaluated
    for points in (np.flatnonzero(is_evaluated), np.flatnonzero(~is_evaluated)):
        for point in draw.choice(points, min(len(points), chosen.checked), replace=False):
            peer.at(int(point))
    largest = errors(found[OURS], peer.seen)
    times = ratio(seconds, PEER, OURS, chosen.timed / chosen.points)
    row = [f"{name}, {chosen.examples:,} + {chosen.test_examples:,} images", str(found[OURS].num_evaluations)]
    row += [
        f"{times}×",
        f"{largest['evaluated']:.1g}",
        f"{100 * largest['accuracy']:.2f}",
        f"{100 * largest['loss']:.2f}",
    ]
    print(*row, sep=" | ")
    compared = int(is_evaluated[list(peer.seen)].sum())
    curve = {"estimated_errors": dict(found[OURS].estimated_errors), "largest_steps": dict(found[OURS].largest_steps)}
    return row, {"seconds": seconds, "errors": largest, "num_compared": compared, "num_seen": len(peer.seen), **curve}


def main(arguments: list[str] | None = None) -> None:
    """Measure and write results/sweep.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--test-examples", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--evaluations", type=int, default=SweepOptions().max_evaluations)
    parser.add_argument("--timed", type=int, default=10, help="points of the peer per round")
    parser.add_argument("--checked", type=int, default=40, help="more points, evaluated and interpolated, each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: for a machine that others use too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--out", type=Path, help="folder of the result; default: results")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    measured = {name: measure(name, chosen) for name in chosen.networks}
    text = TEXT.format(
        points=chosen.timed,
        factor=chosen.points / chosen.timed,
        checked=chosen.checked,
        compared=" and ".join(str(details["num_compared"]) for _, details in measured.values()),
    )
    place = environment(["torch"], chosen.threads) | {"clock": chosen.clock}
    details = {name: found for name, (_, found) in measured.items()}
    result = Result("sweep", TITLE, text, COLUMNS, [row for row, _ in measured.values()], place, details)
    print(result.write(chosen.out) if chosen.out else result.write())


if __name__ == "__main__":
    main()
