"""Whole studies through the command line: what is shown, what is written, and what a partial study still gives."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

Espalier = Callable[..., Any]
# A network that fails while the file `broken` lies beside it. Its key stays the same: whoever mends it just runs again.
FRAGILE = """
from pathlib import Path
from torch import nn

class Fragile(nn.Sequential):
    def forward(self, inputs):
        if self.training and (Path(__file__).parent / "broken").exists():
            raise RuntimeError("no luck [bold]today")
        return super().forward(inputs)

def build():
    return Fragile(nn.Linear(6, 3))
"""
FRAGILE_TASK = """
name = "fragile"
model = "fragile_network:build"
data = {data!r}
[training]
epochs = 1
batch_size = 32
learning_rate = 0.1
"""


def standing(answer: Any) -> dict[str, list[str]]:
    """Return state -> names of cells, from `espalier status --json`."""
    assert answer.code == 0, answer.err
    found: dict[str, list[str]] = {}
    for cell in json.loads(answer.out)["cells"]:
        found.setdefault(cell["state"], []).append(cell["name"])
    return found


def test_a_study_ends_in_a_table_and_a_page(
    small_study: Path, settings: list[str], working_folder: Path, espalier: Espalier
) -> None:
    answer = espalier("run", small_study, *settings)
    folder = working_folder / "runs" / "tiny-study"
    assert (answer.code, answer.err) == (0, "")
    assert "\x1b" not in answer.out
    lines = answer.out.splitlines()
    num_cells = len(list((folder / "cells").glob("*.h5")))
    assert lines[0] == f"study tiny-study: {num_cells} cells in {folder}"
    assert [line.split("]")[0] for line in lines[1 : num_cells + 1]] == [
        f"[{i + 1}/{num_cells}" for i in range(num_cells)
    ]
    assert all(" done " in line for line in lines[1 : num_cells + 1])
    assert lines[num_cells + 1].startswith(f"{num_cells} cells: {num_cells} done in ")
    assert lines[-1] == f"report: {folder / 'report' / 'index.html'}"
    assert (folder / "report" / "index.html").stat().st_size > 100_000
    assert {"study.toml", "tasks", "plan.json", "results.h5", "cells", "logs", "report"} == {
        path.name for path in folder.iterdir()
    }
    again = espalier("run", small_study, *settings)
    assert f"{num_cells} cells: {num_cells} cached in " in again.out


def test_the_frozen_study_runs_again_to_the_same_cells(study: Path, espalier: Espalier) -> None:
    answer = espalier("run", study / "study.toml", "--out", study)
    assert answer.code == 0, answer.err
    assert " cached in " in answer.out
    assert " done" not in answer.out


def test_status_counts_and_names_every_cell(study: Path, espalier: Espalier) -> None:
    cells = sorted(path.stem for path in (study / "cells").glob("*.h5"))
    assert sorted(standing(espalier("status", study, "--json"))["done"]) == cells
    out = espalier("status", study).out
    for kind in ("dense", "prune", "spectrum"):
        number = sum(name.startswith(f"{kind}-") for name in cells)
        assert any(line.replace("│", " ").split() == [kind, str(number), "0", "0"] for line in out.splitlines())


@pytest.mark.parametrize("lost", ["spectrum-*.h5", "prune-*.h5", "dense-*.h5", "*.h5"])
def test_a_partial_study_is_collected_and_reported(lost: str, study: Path, espalier: Espalier) -> None:
    before = sorted(path.stem for path in (study / "cells").glob("*.h5"))
    for path in (study / "cells").glob(lost):
        path.unlink()
    left = sorted(path.stem for path in (study / "cells").glob("*.h5"))
    found = standing(espalier("status", study, "--json"))
    assert sorted(found["missing"]) == sorted(set(before) - set(left))
    assert espalier("collect", study).out == f"{len(left)} of {len(before)} cells in {study / 'results.h5'}\n"
    with h5py.File(study / "results.h5") as file:
        assert (file.attrs["num_planned"], file.attrs["num_committed"]) == (len(before), len(left))
        assert sorted(file.get("cells", [])) == left
    answer = espalier("report", study)
    assert (answer.code, answer.err) == (0, "")
    assert (study / "report" / "index.html").exists()


def test_what_failed_costs_what_needs_it_and_is_made_good_by_the_same_command(
    small_study: Path, working_folder: Path, tiny_data: Path, espalier: Espalier
) -> None:
    (working_folder / "fragile_network.py").write_text(FRAGILE)
    (working_folder / "broken").touch()
    small_study.with_name("fragile.toml").write_text(FRAGILE_TASK.format(data=str(tiny_data)))
    text = small_study.read_text().partition("[options")[0].replace('["task.toml"]', '["task.toml", "fragile.toml"]')
    small_study.write_text(text)
    command = ("run", small_study, "--out", "study", "--set", 'methods=["lomp"]', "--set", 'analyses=["spectrum"]')
    answer = espalier(*command)
    assert answer.code == 1
    states = standing(espalier("status", "study", "--json"))
    (failed,) = (name for name in states["failed"])
    log = working_folder / "study" / "logs" / f"{failed}.log"
    first, others, last = answer.err.splitlines()
    assert all(line.startswith("espalier: ") for line in (first, others, last))
    assert f"RuntimeError: no luck [bold]today (see {log})" in first
    assert others.endswith(f" and {len(states['missing']) - 1} more: needs {failed}")
    assert "run the command again, with the cause mended: espalier run" in last
    assert "RuntimeError: no luck [bold]today" in log.read_text()
    assert failed in espalier("status", "study").out
    done = {path: path.stat().st_mtime_ns for path in (working_folder / "study" / "cells").iterdir()}
    assert len(done) == len(states["done"]) > 0
    (working_folder / "broken").unlink()
    answer = espalier(*command)
    assert (answer.code, answer.err) == (0, "")
    assert f"{1 + len(states['missing'])} done, {len(done)} cached" in answer.out
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in done.items())
    assert not log.exists()


def test_a_terminal_sees_one_live_table(small_study: Path, working_folder: Path) -> None:
    command = [sys.executable, "-m", "espalier", "run", str(small_study), "--set", "training.epochs=2"]
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=working_folder, env=environment)
    os.close(theirs)
    seen = read_all(ours)
    os.close(ours)
    assert process.wait(timeout=120) == 0, seen
    for word in ("running", "waiting", "cached", "of 2", "\x1b[?25l", "\x1b[?25h", "report: "):
        assert word in seen
    assert "[1/" not in seen  # no plain lines
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")


def read_all(terminal: int, limit_s: float = 300) -> str:
    """Read what a process writes to its terminal until it ends."""
    content, deadline_s = b"", time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        if select.select([terminal], [], [], 1.0)[0]:
            try:
                content += os.read(terminal, 65536)
            except OSError:  # the last process has closed the other end
                break
    return content.decode()
