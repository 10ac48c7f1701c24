"""Where a result was made: versions and machine, by allow-list. Never the whole environment, which holds secrets."""

import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "numpy", "scipy", "h5py", "scikit-learn", "ray", "submitit")
VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_CLUSTER_NAME",
    "SLURM_JOB_ID",
    "SLURM_JOB_PARTITION",
    "SLURM_RESTART_COUNT",
)


def environment(device: str, threads: int) -> dict[str, Any]:
    """Return what explains a difference between two runs of the same cell; JSON-able, no secrets."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES if _version(name)},
        "commit": commit(),
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "num_cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def best_device() -> str:
    """Return "cuda" where there is a GPU, else "cpu"; on a GPU, switch TF32 off in this process.

    TF32 keeps 10 bits of the mantissa: its noise moves a sparsity limit by several thousandths.
    """
    if not torch.cuda.is_available():
        return "cpu"
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return "cuda"


def gpu_is_lost() -> bool:
    """Return whether an error has taken the GPU from this process: each later call of CUDA in it would fail as well.

    So does a failed assertion in a kernel, or memory of the GPU that is damaged; another process may go on.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def hardware(device: str) -> str:
    """Return the name of what computes on a device, "cpu" or "cuda": equal names give equal bits."""
    return torch.cuda.get_device_name() if device == "cuda" else _processor()


@cache
def commit() -> str:
    """Return the checkout's git commit, with "+changes" when files differ from it, or "unknown"."""
    git = ["git", "-C", str(Path(__file__).parent), "--no-optional-locks"]

    def answer(*arguments: str) -> str:
        done = subprocess.run(  # noqa: S603  fixed words, no shell
            [*git, *arguments], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        changes = answer("status", "--porcelain", "--untracked-files=no")
        return answer("rev-parse", "HEAD") + ("+changes" if changes else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@cache
def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
