"""How fast batches come from a data set's file, alone and beside a training.

Run: python -m tests.performance.bench_streaming. Noise on large pixels stands for photographs, which are as hard to
compress.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import nn

from suite.datasets import stored_splits
from suite.splits import Examples, Split
from suite.streaming import StreamedSplit

SHAPE, BATCH = (3, 64, 64), 128
NUM_IMAGES, NUM_BATCHES, CHUNK_KIB, ROUNDS = 20_000, 20, 64, 3
ELSEWHERE_S = 0.1  # a step on a device, for which the host waits


def write(path: Path, num_images: int, chunk_bytes: int) -> float:
    """Write gzipped chunks of at most so many bytes; return stored bytes by bytes."""
    draw = np.random.default_rng(0)
    rows = max(1, chunk_bytes // int(np.prod(SHAPE)))
    layout = {"compression": "gzip", "compression_opts": 4, "shuffle": True, "fletcher32": True}
    with h5py.File(path, "w") as file:
        inputs = file.create_dataset("train/inputs", (num_images, *SHAPE), "u1", chunks=(rows, *SHAPE), **layout)
        for begin in range(0, num_images, 500):
            coarse = draw.integers(0, 256, (min(500, num_images - begin), 3, 16, 16)).repeat(4, 2).repeat(4, 3)
            noise = np.rint(draw.normal(0, 4, coarse.shape))
            inputs[begin : begin + len(coarse)] = np.clip(coarse + noise, 0, 255)
        file["train/targets"] = np.arange(num_images) % 10
        return float(inputs.id.get_storage_size() / (num_images * np.prod(SHAPE)))


def alone(examples: Examples, order: torch.Tensor) -> Iterator[Split]:
    """Yield batches read when they are asked for."""
    return (examples.part(index) for index in order.split(BATCH))


def ahead(examples: Examples, order: torch.Tensor) -> Iterator[Split]:
    """Yield batches read one ahead."""
    return examples.batches(order, BATCH)


def rate(batches: Iterator[Split], step: Callable[[Split], object]) -> float:
    """Return images per second, a first batch left out."""
    next(batches)
    start, count = time.perf_counter(), 0
    for batch in batches:
        step(batch)
        count += len(batch.targets)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return count / (time.perf_counter() - start)


def trainer(device: str) -> Callable[[Split], object]:
    """Return a step of a small convolutional network."""
    with torch.random.fork_rng(devices=[]):
        layers = nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10)
        model = nn.Sequential(*layers).to(device)
        model(torch.zeros(1, *SHAPE, device=device))
    optimiser = torch.optim.SGD(model.parameters(), 1e-3)

    def step(batch: Split) -> None:
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(batch.network_inputs()), batch.targets).backward()
        optimiser.step()

    return step


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=NUM_IMAGES)
    parser.add_argument("--batches", type=int, default=NUM_BATCHES)
    parser.add_argument("--chunk-kib", type=int, default=CHUNK_KIB)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.h5"
        ratio = write(path, asked.images, 1024 * asked.chunk_kib)
        print(f"{device}, {asked.images} images, chunks of {asked.chunk_kib} KiB, stored / raw {ratio:.2f}", flush=True)
        held, streamed = (stored_splits(path, device, stream=stream)["train"] for stream in (False, True))
        assert isinstance(streamed, StreamedSplit)
        draw = torch.Generator().manual_seed(0)
        ways = {"in memory": (held, alone), "streamed": (streamed, alone), "streamed, one ahead": (streamed, ahead)}
        steps: dict[str, Callable[[Split], object]] = {
            "reading": lambda _: None,
            f"{1000 * ELSEWHERE_S:.0f} ms elsewhere": lambda _: time.sleep(ELSEWHERE_S),
            "training": trainer(device),
        }
        found: dict[str, list[float]] = {}
        for _ in range(ROUNDS):  # interleaved, for a machine that is not alone
            for work, step in steps.items():
                for way, (examples, through) in ways.items():
                    order = torch.randperm(asked.images, generator=draw)[: BATCH * (asked.batches + 1)]
                    found.setdefault(f"{work}, {way}", []).append(rate(through(examples, order), step))
        for what, rates in found.items():
            print(f"{what}: {np.median(rates):.0f} images/s ({min(rates):.0f} to {max(rates):.0f})")


if __name__ == "__main__":
    main()
