"""The memory that the engine plans before it starts against what a process then takes. Run: make benchmark

Every case runs in a process of its own, on the CPU of a Linux machine: there the kernel tells a process its peak.
"""

import argparse
import ctypes
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.curvature.allocation import hand_back_freed_memory
from suite.curvature.growing_runs import GrowingRuns
from suite.curvature.memory import MemoryPlan
from suite.curvature.operators import HessianOperator
from suite.curvature.probes import ProbeRequest
from suite.networks.loaded import Network
from suite.splits import Split
from tests.performance.contenders import workload
from tests.performance.interleaved import Result, environment

CASES = {"fc5": (2000,), "transformer": (64,), "resnet20": (128, 512), "resnet18": (40,)}  # images
GROWN = (24, 32, 48)  # steps, as a search to a tolerance takes them
STEPS = GROWN[0]
THREADS = 1
HOW = {"yes": ", graphs kept", "no": "", "grown": f", graphs kept, grown to {GROWN[-1]} steps"}
COLUMNS = ["", "planned MiB", "peak MiB", "peak / plan"]
TITLE = "Planned memory."
TEXT = (
    f"{STEPS} Lanczos steps on 3x32x32 images, or where it says so a run that grows to {GROWN[-1]} in parts, each case "
    "in a process of its own: the plan that is logged before the run, and the process's peak while it runs (weights "
    "and data, which lie there before, by their size). Freed tensors are handed back to the system at once, as the "
    "engine does where a product takes more than 1 GiB. Below, where nothing has to be spared, glibc keeps pieces of "
    "them in its heap, and a process took up to twice as much."
)


class Transformer(nn.Module):
    """Two blocks on 64 patches, as a user might bring it; built of linear layers, normalisation and attention."""

    def __init__(self, width: int = 128, num_heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.blocks = nn.ModuleList(_Block(width, num_heads) for _ in range(2))
        self.head = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, 10)."""
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        logits: Tensor = self.head(tokens.mean(dim=1))
        return logits


class _Block(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        size, length, width = tokens.shape
        parts = self.attend(self.before(tokens)).reshape(size, length, 3, self.num_heads, width // self.num_heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        heads = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        tokens = tokens + self.join(heads.reshape(size, length, width))
        narrowed: Tensor = self.narrow(functional.gelu(self.widen(self.between(tokens))))
        return tokens + narrowed


def network(name: str, num_examples: int) -> Network:
    """Return an untrained network with random images; its products take what those of a trained one do."""
    if name != "transformer":
        work = workload(name, num_examples)
        return Network(work.model.requires_grad_(True), {"train": Split(work.inputs, work.targets)})
    torch.manual_seed(0)
    images, classes = torch.randn(num_examples, 3, 32, 32), torch.randint(0, 10, (num_examples,))
    return Network(Transformer().eval(), {"train": Split(images, classes)})


def measure(name: str, num_examples: int, how: str, *, steps: int) -> dict[str, Any]:
    """Plan a run in this process, run it, and return its parts and its peak in bytes.

    Args:
        name: of the network.
        num_examples: images.
        how: a key of HOW.
        steps: of a run that does not grow.
    """
    torch.set_num_threads(THREADS)
    hand_back_freed_memory()
    operator: HessianOperator = network(name, num_examples).hessian("float32", may_keep_graphs=how != "no")
    ctypes.CDLL(None).malloc_trim(0)  # what the plan's trial freed is no memory that the run may take for nothing
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = _status_bytes("VmRSS")
    runs = GrowingRuns(operator)
    for num_lanczos_steps in GROWN if how == "grown" else (steps,):
        runs.run(ProbeRequest(0, 0, "rademacher", num_lanczos_steps))
    plan = operator.plan
    assert isinstance(plan, MemoryPlan)
    peak = _status_bytes("VmHWM") - before + plan.weights_bytes + plan.data_bytes
    return {"plan": str(plan), "planned_bytes": plan.peak_bytes, "peak_bytes": peak, "ratio": peak / plan.peak_bytes}


def in_own_process(*arguments: str) -> dict[str, Any]:
    """Measure one case in a process of its own.

    Raises:
        CalledProcessError: it failed; its own message is on stderr.
    """
    command = [sys.executable, "-W", "ignore", "-m", "tests.performance.bench_memory", "--one", *arguments]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all cases, print one line each, and write results/memory.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--smoke", action="store_true", help="write nothing")
    parser.add_argument("--one", nargs=3, metavar=("CASE", "IMAGES", "HOW"), help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.one:
        name, num_examples, how = chosen.one
        print(json.dumps(measure(name, int(num_examples), how, steps=chosen.steps)))
        return
    rows, details = [], {}
    for name, num_examples in [(case, size) for case in chosen.cases for size in CASES[case]]:
        for how, words in HOW.items():
            label = f"{name}, {num_examples} images{words}"
            found = in_own_process(name, str(num_examples), how, "--steps", str(chosen.steps))
            rows.append([label, *row(found)])
            details[label] = found
            print(*rows[-1], sep=" | ", flush=True)
            if not chosen.smoke:  # after every case: they take minutes
                Result("memory", TITLE, TEXT, COLUMNS, rows, environment(["torch"], THREADS), details).write()


def row(found: dict[str, Any]) -> list[str]:
    """Return one line of the table."""
    planned, peak = (f"{found[key] / 2**20:.0f}" for key in ("planned_bytes", "peak_bytes"))
    return [planned, peak, f"{found['ratio']:.2f}"]


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()
