"""The reference of the time-to-the-limit benchmark: probes of many steps in float64, one file each, made once.

It takes hours, so each probe is written when it is done, and probes may be computed by processes side by side:
python -m tests.performance.reference --index 0 1 --threads 1
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from suite.curvature.lanczos import lanczos
from suite.curvature.operators import SymmetricOperator
from suite.curvature.probes import ProbeRequest, start_vector
from suite.curvature.quadrature import SpectralMeasure, measure_of_tridiagonals
from suite.networks.sources import MemoryNetwork
from tests.performance.learnable import images, trained, weights_digest

FOLDER = Path(__file__).parent / "references"
NUM_PROBES, NUM_STEPS = 4, 256
_SEED = 1  # not that of the measured runs


def reference_path(model: nn.Module, index: int, num_steps: int, folder: Path = FOLDER) -> Path:
    """Return where one probe's tridiagonal of one network lies."""
    return folder / f"{weights_digest(model)[:16]}-{num_steps}-{index}.json"


def compute_probe(operator: SymmetricOperator, index: int, num_steps: int, path: Path) -> None:
    """Run one probe and write its tridiagonal; the basis is freed when it ends: 8 GB for FC5 and 256 steps."""
    begin_s = time.perf_counter()

    def say(done: int, total: int) -> None:
        print(f"probe {index}: {done} of {total} steps, {time.perf_counter() - begin_s:.0f} s", flush=True)

    start = start_vector(ProbeRequest(_SEED, index, "rademacher", num_steps), operator)
    run = lanczos(operator.matvec, start, num_steps, progress=say)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"diagonal": run.diagonal.tolist(), "off_diagonal": run.off_diagonal.tolist()}) + "\n")


def stored_probes(model: nn.Module, num_steps: int, folder: Path = FOLDER) -> list[int]:
    """Return the indices of the probes whose files are there."""
    return [index for index in range(NUM_PROBES) if reference_path(model, index, num_steps, folder).exists()]


def reference(
    model: nn.Module, source: MemoryNetwork, indices: Sequence[int], num_steps: int, folder: Path = FOLDER
) -> SpectralMeasure:
    """Return the reference's spectral measure; probes whose files are missing are computed, one after the other."""
    runs = _probes(model, source, indices, num_steps, folder)
    return measure_of_tridiagonals((run["diagonal"], run["off_diagonal"]) for run in runs)


def _probes(
    model: nn.Module, source: MemoryNetwork, indices: Sequence[int], num_steps: int, folder: Path
) -> list[dict[str, list[float]]]:
    paths = [reference_path(model, index, num_steps, folder) for index in indices]
    if not all(path.exists() for path in paths):
        operator = source.build()
        for index, path in zip(indices, paths, strict=True):
            if not path.exists():
                compute_probe(operator, index, num_steps, path)
    return [json.loads(path.read_text()) for path in paths]


def main() -> None:
    """Compute some of the reference's probes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=int, nargs="+", default=list(range(NUM_PROBES)))
    parser.add_argument("--steps", type=int, default=NUM_STEPS)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark"), help="of the trained network")
    chosen = parser.parse_args()
    torch.set_num_threads(2)  # of the training: the digest depends on it
    inputs, targets = images(chosen.examples)
    model = trained("fc5", inputs, targets, chosen.folder, chosen.epochs)
    torch.set_num_threads(chosen.threads)
    source = MemoryNetwork.of(model, inputs, targets, "float64")
    _probes(model, source, chosen.index, chosen.steps, FOLDER)


if __name__ == "__main__":
    main()
