"""Images per second of training beside a plain loop. Run: python -W ignore -m tests.performance.bench_training

On a machine with a GPU `--device cuda` measures ResNet-18 and ResNet-50 there and writes results/training_gpu.json.
`--smoke` takes sizes that two cores do in seconds and writes only below --out.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from suite.initialisation import initialise
from suite.memory_order import channels_last
from suite.network import build_model, model_spec
from suite.splits import Normalisation, Split
from suite.study import Recipe
from suite.training.arithmetic import Arithmetic
from suite.training.batches import Batches
from suite.training.divergence import EpochLosses
from suite.training.flops import forward_flops, training_flops
from suite.training.hooks import Hooks
from suite.training.schedules import learning_rate, num_steps
from suite.training.stepper import Stepper
from tests.performance.interleaved import (
    CLOCKS,
    RESULTS,
    Result,
    Seconds,
    Summary,
    environment,
    interleaved,
    ratio,
    summarised,
)
from tests.performance.learnable import pixels
from tests.performance.plain_training import BATCH_SIZE, Images, PlainTraining

Ways = dict[str, tuple[Literal["float32", "bfloat16"], Literal["none", "inductor", "cuda_graphs"]]]
CPU_WAYS: Ways = {
    "float32": ("float32", "none"),
    "float32, compiled": ("float32", "inductor"),
    "bfloat16": ("bfloat16", "none"),
    "bfloat16, compiled": ("bfloat16", "inductor"),
}
GPU_WAYS: Ways = {**CPU_WAYS, "bfloat16, CUDA graphs": ("bfloat16", "cuda_graphs")}
PLAIN = "plain loop"
NORMALISATION = Normalisation((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
LEARNING_RATE = 0.02
TITLE = {"cpu": "Training.", "cuda": "Training on a GPU."}
TEXT = (
    "Images per second of training steps (SGD with momentum, batches of 128, random crops and flips), and in brackets "
    "how many times as fast as a plain loop of the same run: a torch DataLoader with two workers, transforms image by "
    "image, float32, torch's defaults; medians over interleaved rounds. The share is that of a large matrix product in "
    "the same arithmetic, by the products of convolutions and linear layers. Compilation itself is not in it."
)


@dataclass(frozen=True)
class Case:
    """One network and how much of it is timed at once."""

    model: str
    size: int
    num_classes: int
    num_examples: int  # per round


CASES = {
    "cpu": (
        Case("fc5", 32, 10, 3840),
        Case("resnet20", 32, 10, 512),
        Case("resnet18", 32, 10, 256),
    ),
    "cuda": (Case("resnet18", 32, 10, 25600), Case("resnet50", 64, 200, 6400)),
}
SMOKE = Case("resnet20", 8, 10, 256)


def recipe(way: str, ways: Ways, epochs: int = 1000, rate: float = LEARNING_RATE) -> Recipe:
    """Return the recipe of one of our columns."""
    precision, compiled = ways[way]
    changes: dict[str, Any] = {"precision": precision, "compile": compiled, "augmentation": "crop_flip"}
    return Recipe(epochs=epochs, batch_size=BATCH_SIZE, learning_rate=rate, schedule="constant", **changes)


def network(case: Case, device: str, seed: int = 0) -> nn.Module:
    """Return the network with the same initial weights for everybody."""
    spec = model_spec(case.model, {}, (3, case.size, case.size), case.num_classes)
    model = build_model(spec, seed)
    initialise(model, "kaiming_normal", seed)
    return model.to(device)


@dataclass
class OurSteps:
    """The steps of suite.training.loop, an epoch at a time, so that rounds can be interleaved."""

    case: Case
    examples: Split
    recipe: Recipe
    model: nn.Module
    _done: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Prepare everything as the loop does."""
        device = self.examples.targets.device
        self.arithmetic = Arithmetic.of(self.recipe, device)
        self.batches = Batches(self.examples, self.recipe, 0)
        self.losses = EpochLosses(self.recipe, len(self.examples.targets), 0, device)
        self._order = channels_last(self.model)  # for as long as it is measured
        is_last = self._order.__enter__()
        self.stepper = Stepper(self.model, self.recipe, None, Hooks(), self.arithmetic, images_last=is_last)

    def epoch(self) -> float:
        """Train for one epoch and return its mean loss."""
        total = num_steps(self.recipe, len(self.examples.targets))
        per_epoch = total // self.recipe.epochs
        self.model.train()
        with self.arithmetic.applied():
            for step in range(self._done, self._done + per_epoch):
                self.losses.note(
                    step, self.stepper.step(self.batches.at(step), learning_rate(self.recipe, step, total))
                )
        self._done += per_epoch
        return self.losses.mean(self._done - 1, self.arithmetic.precision, [])


def throughput(dtype: torch.dtype, device: str, rows: int) -> Callable[[], float]:
    """Return what does one large matrix product in an arithmetic, to be timed."""
    left, right = (torch.ones(rows, rows, dtype=dtype, device=device) for _ in range(2))
    return lambda: float((left @ right)[0, 0])


def measure(
    case: Case, device: str, ways: Ways, rounds: int, clock: str, rows: int, num_workers: int
) -> tuple[Seconds, float]:
    """Time every way and the plain loop, an epoch of each per round; return seconds and operations per image."""
    inputs, targets = pixels(case.num_examples, case.num_classes, case.size)
    examples = Split(inputs.to(device), targets.to(device), NORMALISATION)
    images = Images(inputs, targets, NORMALISATION)
    plain = PlainTraining(network(case, device), images, LEARNING_RATE, num_workers=num_workers)
    timed: dict[str, Callable[[], object]] = {PLAIN: plain.epoch}
    for way in ways:
        timed[way] = OurSteps(case, examples, recipe(way, ways), network(case, device)).epoch
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        timed[f"matrix product, {name}"] = throughput(dtype, device, rows)
    flops = training_flops(forward_flops(network(case, device), examples), None, 1)
    return interleaved(timed, rounds, clock=CLOCKS[clock]), flops


def row(case: Case, seconds: Seconds, flops: float, ways: Ways, rows: int) -> list[str]:
    """Return one line of the table."""

    def speed(name: str) -> float:
        return case.num_examples / summarised(seconds[name]).median

    cells = [f"{case.model}, {case.size} x {case.size}", f"{speed(PLAIN):.4g}"]
    for way in ways:
        product = f"matrix product, {way.partition(',')[0]}"
        peak = 2 * rows**3 / summarised(seconds[product]).median
        cells.append(f"{speed(way):.4g} ({ratio(seconds, PLAIN, way)}×; {speed(way) * flops / peak:.0%})")
    return cells


def parsed(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """Add the options of all measurements of trainings, read the command line, and set the number of threads."""
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--smoke", action="store_true", help="small sizes, not among the results")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    chosen = parser.parse_args(arguments)
    if chosen.smoke and chosen.out == RESULTS:
        parser.error("--smoke writes no result of the project. Give --out DIR.")
    torch.set_num_threads(chosen.threads)
    return chosen


def main(arguments: list[str] | None = None) -> None:
    """Measure all networks and write results/training.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--clock", choices=list(CLOCKS), default="wall", help="cpu: of this process, so with --workers 0"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that load for the plain loop")
    parser.add_argument("--cases", nargs="*", default=None, help="names of networks, default: all")
    parser.add_argument("--ways", nargs="*", default=None, help="columns, default: all")
    chosen = parsed(parser, arguments)
    known = CPU_WAYS if chosen.device == "cpu" else GPU_WAYS
    ways = {name: known[name] for name in chosen.ways or known}
    cases = (SMOKE,) if chosen.smoke else CASES[chosen.device]
    cases = tuple(case for case in cases if chosen.cases is None or case.model in chosen.cases)
    rows_of_matrix = 256 if chosen.smoke else 2048 if chosen.device == "cpu" else 8192
    rows: list[list[str]] = []
    details: dict[str, object] = {}
    for case in cases:
        seconds, flops = measure(case, chosen.device, ways, chosen.rounds, chosen.clock, rows_of_matrix, chosen.workers)
        rows.append(row(case, seconds, flops, ways, rows_of_matrix))
        print(*rows[-1], sep=" | ", flush=True)
        ratios: dict[str, Summary] = {way: ratio(seconds, PLAIN, way) for way in ways}
        details[f"{case.model} {case.size}"] = {"seconds": seconds, "flops_per_image": flops, "ratios": ratios}
    where = environment(["torch"], chosen.threads) | {"clock": chosen.clock}
    if chosen.device == "cuda":
        where["machine"] = torch.cuda.get_device_name()
    name = "training" if chosen.device == "cpu" else "training_gpu"
    columns = ["", PLAIN, *ways]
    Result(name, TITLE[chosen.device], TEXT, columns, rows, where, details).write(chosen.out)


if __name__ == "__main__":
    main()
