"""What sharding brings and costs: two workers against one, an actor against this process, a group against one worker.

    python tests/performance/bench_sharding.py --rounds 9

All variants run the same probes in turn within each round, warm, with the same threads per process; ratios are taken
within a round, so a machine that slows down between rounds does not enter. Targets: two single-thread workers on two
free cores at least 1.8 times as fast as one; an actor at most 2 % slower than this process.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # the checkout that this file lies in, from wherever it is called

import torch
from sklearn.datasets import load_digits
from torch import nn

from launchers._ray_session import ray_session
from launchers.probes import RayProbeMap
from suite.curvature.operators import HessianOperator
from suite.curvature.probes import ProbeRequest
from suite.curvature.slq import ProbeMap, run_probe, slq
from suite.environment import environment

RESULTS = Path(__file__).parent / "results" / "sharding.json"
THREADS = 1


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


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print one line per comparison, and write the JSON file.

    Cost: rounds * 4 * probes * steps products of some 10 ms each at the default width.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--probes", type=int, default=8, help="per variant and round; an even number")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--out", type=Path, default=RESULTS)
    settings = parser.parse_args(argv)
    torch.set_num_threads(THREADS)
    rounds = measure(settings)
    rows = [
        row("two workers against one", "speed-up", rounds, "one actor", "two actors", target=1.8),
        row("an actor against this process", "time ratio", rounds, "one actor", "inline", target=1.02),
        row("a group of two against one worker", "speed-up", rounds, "one actor", "group of two", target=None),
    ]
    write(settings, rows, sys.argv[1:] if argv is None else argv)
    for each in rows:
        spread = f"{each['ratio_min']:.3f} to {each['ratio_max']:.3f}"
        print(f"{each['name']}: {each['measure']} {each['ratio_median']:.3f} ({spread})")
    return 0


def measure(settings: argparse.Namespace) -> list[dict[str, float]]:
    """Return one dictionary per round: variant -> seconds for all probes."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not find this file
    source = DigitsSource(settings.width)
    requests = [ProbeRequest(0, index, "rademacher", settings.steps) for index in range(settings.probes)]
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
        for run in variants.values():
            run()  # actors are hired and caches are filled
        return [one_round(variants, number) for number in range(settings.rounds)]


def one_round(variants: dict[str, Callable[[], Any]], number: int) -> dict[str, float]:
    """Time every variant once, in an order that turns from round to round."""
    names = list(variants)
    turn = number % len(names)
    seconds = {}
    for name in names[turn:] + names[:turn]:
        begin_s = time.perf_counter()
        variants[name]()
        seconds[name] = time.perf_counter() - begin_s
    return seconds


def row(
    name: str, what: str, rounds: list[dict[str, float]], over: str, under: str, *, target: float | None
) -> dict[str, Any]:
    """Return the comparison time(over) / time(under), round by round and in the middle."""
    ratios = [each[over] / each[under] for each in rounds]
    return {
        "name": name,
        "measure": what,
        "over": over,
        "under": under,
        "target": target,
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "ratios": ratios,
        "over_median_s": statistics.median(each[over] for each in rounds),
        "under_median_s": statistics.median(each[under] for each in rounds),
    }


def write(settings: argparse.Namespace, rows: list[dict[str, Any]], argv: Sequence[str]) -> None:
    """Write the JSON file with what explains a difference to another run."""
    facts = environment("cpu", THREADS)
    load = os.getloadavg()[0]
    content = {
        "benchmark": "sharding",
        "machine": f"{facts['num_cpus']} CPUs ({facts['processor']}), load {load:.2f} at the end, {facts['system']}",
        "versions": {"python": facts["python"], **facts["packages"]},
        "threads": THREADS,
        "commit": facts["commit"],
        "command": " ".join(["python", "tests/performance/bench_sharding.py", *argv]),
        "settings": {name: value for name, value in vars(settings).items() if name != "out"},
        "rows": rows,
    }
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    settings.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
