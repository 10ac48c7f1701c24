"""Accuracy beside a plain loop. Run: python -W ignore -m tests.performance.bench_training_accuracy

Nothing is timed, so the machine need not be quiet. On a machine with a GPU `--device cuda` trains ResNet-18 there.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from suite.problem import evaluate
from suite.splits import Split
from suite.training.loop import train
from tests.performance.bench_training import CPU_WAYS, NORMALISATION, PLAIN, Case, network, parsed, recipe
from tests.performance.interleaved import Result, environment
from tests.performance.learnable import pixels
from tests.performance.plain_training import Images, PlainTraining

WAYS = ("float32", "bfloat16")
TITLE = {"cpu": "Accuracy of these trainings.", "cuda": "Accuracy of these trainings on a GPU."}
TEXT = (
    "The same networks and recipes on a learnable set (smooth prototypes with noise, cropped and flipped): accuracy on "
    "as many unseen images, in per cent, of trainings that stop just short of 100. Means over {seeds} seeds, and for "
    "the plain loop their range; in brackets the mean difference from it with the same initial weights, and its 95 % "
    "interval by Student's t. Order and crops differ between the loops, so single seeds do not agree."
)


@dataclass(frozen=True)
class Learning:
    """A whole training; at 100 % all ways would be alike."""

    case: Case  # its number of examples is that of the training
    epochs: int
    learning_rate: float


LEARNINGS = {
    "cpu": (Learning(Case("fc5", 32, 10, 3840), 5, 0.02), Learning(Case("resnet20", 32, 10, 2048), 8, 0.05)),
    "cuda": (Learning(Case("resnet18", 32, 10, 25600), 2, 0.05),),
}
SMOKE = Learning(Case("resnet20", 8, 10, 256), 1, 0.05)


def accuracies(learning: Learning, device: str, seeds: Sequence[int]) -> dict[str, list[float]]:
    """Return test accuracies by way and seed; the ways begin with the same weights."""
    case, rate = learning.case, learning.learning_rate
    half = case.num_examples
    inputs, targets = pixels(2 * half, case.num_classes, case.size)
    train_split = Split(inputs[:half].to(device), targets[:half].to(device), NORMALISATION)
    test = Split(inputs[half:].to(device), targets[half:].to(device), NORMALISATION)
    found: dict[str, list[float]] = {name: [] for name in (PLAIN, *WAYS)}
    for seed in seeds:
        model = network(case, device, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # of the workers' crops
            plain = PlainTraining(model, Images(inputs[:half], targets[:half], NORMALISATION), rate, seed=seed)
            for _ in range(learning.epochs):
                plain.epoch()
        found[PLAIN].append(evaluate(model, test).accuracy)
        for way in WAYS:
            model = network(case, device, seed)
            train(model, {"train": train_split}, recipe(way, CPU_WAYS, learning.epochs, rate), seed)
            found[way].append(evaluate(model, test).accuracy)
        print(learning.case.model, seed, {name: f"{values[-1]:.1%}" for name, values in found.items()}, flush=True)
    return found


def row(learning: Learning, found: dict[str, list[float]]) -> list[str]:
    """Return one line of the table, in per cent."""
    plain = 100 * np.array(found[PLAIN])
    cells = [
        f"{learning.case.model}, {learning.epochs} epochs of {learning.case.num_examples:,}",
        f"{plain.mean():.1f} ({plain.min():.1f} to {plain.max():.1f})",
    ]
    for way in WAYS:
        ours = 100 * np.array(found[way])
        cells.append(f"{ours.mean():.1f} ({difference_text(ours - plain)})")
    return cells


def difference_text(differences: np.ndarray) -> str:
    """Return mean and half width of the 95 % interval; no interval of one seed."""
    mean, count = differences.mean(), len(differences)
    if count < 2:
        return f"{mean:+.1f}"
    half_width = stats.t.ppf(0.975, count - 1) * differences.std(ddof=1) / count**0.5
    return f"{mean:+.1f} ± {half_width:.1f}"


def main(arguments: list[str] | None = None) -> None:
    """Train all and write results/training_accuracy.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=5)
    chosen = parsed(parser, arguments)
    learnings = (SMOKE,) if chosen.smoke else LEARNINGS[chosen.device]
    found = {each.case.model: accuracies(each, chosen.device, range(chosen.seeds)) for each in learnings}
    rows = [row(each, found[each.case.model]) for each in learnings]
    where = environment(["torch"], chosen.threads)
    if chosen.device == "cuda":
        where["machine"] = torch.cuda.get_device_name()
    name = "training_accuracy" if chosen.device == "cpu" else "training_accuracy_gpu"
    text = TEXT.format(seeds=chosen.seeds)
    Result(name, TITLE[chosen.device], text, ["", PLAIN, *WAYS], rows, where, {"accuracies": found}).write(chosen.out)


if __name__ == "__main__":
    main()
