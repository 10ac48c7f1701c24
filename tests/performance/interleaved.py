"""Timing side by side: every round calls each contender once, so that a busy machine slows all of them alike.

Ratios are taken within a round and only then summarised; seconds of a shared machine mean little by themselves.
"""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}  # cpu: for a machine that others use too

Seconds = dict[str, list[float]]  # contender -> one number per round


@dataclass(frozen=True)
class Summary:
    """Median and quartiles of one number per round."""

    median: float
    lower_quartile: float
    upper_quartile: float
    num_rounds: int

    def __str__(self) -> str:
        if self.num_rounds == 1:
            return f"{self.median:.2f} (one round)"
        return f"{self.median:.2f} ({self.lower_quartile:.2f} to {self.upper_quartile:.2f})"


@dataclass(frozen=True)
class Result:
    """What one benchmark found: one JSON file, one table of the README.

    Attributes:
        name: the file's stem.
        title: of the table.
        text: one paragraph above it: what was measured, and how to read it.
        columns: headings.
        rows: one cell per column, as printed.
        environment: see environment().
        details: everything measured, for other programs.
    """

    name: str
    title: str
    text: str
    columns: list[str]
    rows: list[list[str]]
    environment: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path = RESULTS) -> Path:
        """Write results/NAME.json and return its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(asdict(self), indent=1, default=_plain) + "\n", encoding="utf-8")
        return path


def read_results(folder: Path = RESULTS) -> list[Result]:
    """Return all results by name."""
    return [Result(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    num_rounds: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    warm_up: bool = True,
) -> Seconds:
    """Time every contender once per round, A B C A B C.

    Args:
        contenders: name -> what is timed; it must have finished when it returns (synchronise a device in it).
        num_rounds: at least 1.
        clock: seconds.
        warm_up: begin with one round that does not count: first calls allocate, compile and load.

    Raises:
        ValueError: num_rounds is below 1.
    """
    if num_rounds < 1:
        raise ValueError(f"num_rounds={num_rounds} is too small. Expected: at least 1.")
    seconds: Seconds = {name: [] for name in contenders}
    for index in range(-int(warm_up), num_rounds):
        for name, contender in contenders.items():
            begin_s = clock()
            contender()
            end_s = clock()
            if index >= 0:
                seconds[name].append(end_s - begin_s)
    return seconds


def summarised(values: Sequence[float]) -> Summary:
    """Return median and quartiles; of one value all three are that value."""
    if len(values) == 1:
        return Summary(values[0], values[0], values[0], 1)
    lower, middle, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Summary(middle, lower, upper, len(values))


def ratio(seconds: Seconds, numerator: str, denominator: str, divisor: float = 1.0) -> Summary:
    """Summarise the ratio of two contenders of the same round, divided by a constant (the number of probes, say)."""
    pairs = zip(seconds[numerator], seconds[denominator], strict=True)
    return summarised([one / other / divisor for one, other in pairs])


def environment(packages: Sequence[str], threads: int) -> dict[str, Any]:
    """Return the machine in words, threads, versions and commit."""
    versions = {name: metadata.version(name) for name in packages}
    return {
        "machine": f"{os.cpu_count()} cores, {_processor()}, {platform.system()}",
        "threads": threads,
        "python": platform.python_version(),
        "versions": versions,
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    """Return the commit that was measured, marked where files have changed since."""
    asked = ["git", "describe", "--always", "--dirty", "--exclude", "*", "--abbrev=12"]
    answer = subprocess.run(asked, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"


def _plain(value: Any) -> Any:
    return asdict(value) if isinstance(value, Summary) else str(value)
