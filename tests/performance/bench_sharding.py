"""What sharding brings and costs: two workers against one, an actor against this process, a group against one worker.

Run: make benchmark. All variants run the same probes in every round, warm, with one thread per process. Targets: two
workers on two free cores at least 1.8 times as fast as one; an actor at most 2 % slower than this process.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

from launchers._ray_session import ray_session
from launchers.probes import RayProbeMap
from suite.curvature.operators import HessianOperator
from suite.curvature.probes import ProbeRequest
from suite.curvature.slq import ProbeMap, run_probe, slq
from tests.performance.interleaved import Result, Seconds, environment, interleaved, ratio

THREADS = 1
TITLE = "Probes on Ray actors."
TEXT = (
    "Probes of a perceptron on the digits, one thread per process; medians over interleaved rounds (and quartiles). "
    "The group shares the data of every product, which pays where one product is long; these take milliseconds."
)
COMPARISONS = {  # name: (slower, faster)
    "two actors, times as fast as one": ("one actor", "two actors"),
    "one actor, time over that of this process": ("one actor", "inline"),
    "one group of two, times as fast as one actor": ("one actor", "group of two"),
}


@dataclass(frozen=True)
class DigitsSource:
    """The Hessian of an untrained perceptron on the 1,797 digits; its products cost what those of a trained one do."""

    width: int

    def build(self) -> HessianOperator:
        """Return the whole Hessian."""
        return self.build_shard(0, 1)

    def build_shard(self, rank: int, size: int) -> HessianOperator:
        """Return the part of one of `size` processes."""
        images, digits = load_digits(return_X_y=True)
        inputs, targets = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(digits)
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(64, self.width),
            nn.ReLU(),
            nn.Linear(self.width, self.width),
            nn.ReLU(),
            nn.Linear(self.width, 10),
        )
        names = [name for name, parameter in model.named_parameters() if parameter.ndim > 1]
        batch = (inputs.tensor_split(size)[rank], targets.tensor_split(size)[rank])
        return HessianOperator(model, names, [batch], num_examples=len(targets))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print one line per comparison, and write results/sharding.json.

    Cost: rounds * 4 * probes * steps products of some 30 ms each at the default width.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--probes", type=int, default=4, help="per variant and round; an even number")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--smoke", action="store_true", help="write nothing")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(THREADS)
    seconds = measure(chosen)
    rows = [[name, str(ratio(seconds, over, under))] for name, (over, under) in COMPARISONS.items()]
    for row in rows:
        print(*row, sep=" | ")
    details = {"seconds": seconds, "settings": vars(chosen)}
    if not chosen.smoke:
        columns = ["", "median (quartiles)"]
        Result("sharding", TITLE, TEXT, columns, rows, environment(["torch", "ray"], THREADS), details).write()


def measure(chosen: argparse.Namespace) -> Seconds:
    """Return variant -> seconds for all probes, one number per round."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not find this file
    source = DigitsSource(chosen.width)
    requests = [ProbeRequest(0, index, "rademacher", chosen.steps) for index in range(chosen.probes)]
    operator = source.build()
    with (
        ray_session(5 * THREADS, 0),
        RayProbeMap(1, THREADS).standing() as one,
        RayProbeMap(2, THREADS).standing() as two,
        RayProbeMap(2, THREADS, group_size=2).standing() as pair,
    ):

        def through(probe_map: ProbeMap) -> Callable[[], Any]:
            return lambda: slq(source, requests, map=probe_map)

        variants: dict[str, Callable[[], Any]] = {
            "inline": lambda: [run_probe(operator, request) for request in requests],
            "one actor": through(one),
            "two actors": through(two),
            "group of two": through(pair),
        }
        return interleaved(variants, chosen.rounds)


if __name__ == "__main__":
    main()
