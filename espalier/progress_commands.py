"""Commands about a study under way, from any machine that sees its folder: status, cancel."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from espalier.study_commands import Folder
from espalier.terminal import complain, resumable

if TYPE_CHECKING:
    from launchers._standing import Overview
    from suite.progress import Standing

app = typer.Typer()

ALWAYS = ("done", "failed", "missing")
STATES = ("done", "running", "queued", "waiting", "unknown", "failed", "lost", "missing")
MANY = 8  # cells that are listed before the rest is counted


@app.command(epilog="Example: espalier status runs/quickstart --json")
def status(
    folder: Folder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, every cell with its state.")] = False,
) -> None:
    """Show how a study stands: what is done, running, queued and why, failed, lost or missing.

    Its folder is the truth; where jobs were queued, Slurm is asked once what became of them. A study that was queued
    is shown by waves: cells of a wave need cells of earlier waves alone.
    """
    from launchers._slurm_cluster import SlurmCluster
    from launchers._standing import overview
    from suite.progress import counts, read_plan

    found = overview(read_plan(folder), folder.absolute(), SlurmCluster())
    if as_json:
        cells = [vars(standing) for standing in found.cells]
        print(json.dumps({"counts": counts(found.cells), "notes": found.notes, "cells": cells}, indent=1))
        return
    Console().print(_table(found))
    for line in (*_under_way(found.cells), *_ended_badly(found.cells)):
        print(line)
    for note in found.notes:
        complain(note)


@app.command(epilog="Example: espalier cancel /shared/me/quickstart")
def cancel(folder: Folder) -> None:
    """Take all jobs of a study out of the queue and wait until none is left; committed cells stay.

    Ends what `espalier submit` and `espalier run --launcher slurm` queued for this folder, and nothing else. A running
    job may take as long to end as the site's KillWait, half a minute as a rule.
    """
    from launchers._cancel import cancel as cancel_jobs
    from launchers._slurm_cluster import SlurmCluster
    from suite.progress import read_plan

    plan, console = read_plan(folder), Console()
    with resumable(), console.status("asking Slurm") as shown:
        done = cancel_jobs(plan, folder, SlurmCluster(), lambda left: shown.update(f"{left} jobs left"))
    if not done.jobs:
        print(f"study {plan.study.name}: nothing is queued, nothing was cancelled")
        return
    print(f"study {plan.study.name}: {len(done.jobs)} jobs cancelled, with {len(done.cells)} cells; none is left")
    for line in _listed(f"{cell.id.name} ({cell.title})" for cell in done.cells):
        print(line)
    print(
        f"What is committed stays. To queue the rest again: espalier submit {folder}/study.toml --profile P "
        f"--out {folder}"
    )


def _table(found: "Overview") -> Table:
    """Return one row for each kind of cell, or for each wave of a study that was queued."""
    states = [state for state in STATES if state in ALWAYS or any(each.state == state for each in found.cells)]
    table = Table("wave" if found.waves else "cells", *states)
    rows: dict[str, list[Standing]] = {}
    for standing in found.cells:
        rows.setdefault(f"{standing.wave}" if found.waves else standing.kind, []).append(standing)
    for row, members in sorted(rows.items(), key=lambda row: int(row[0])) if found.waves else rows.items():
        counted = Counter(each.state for each in members)
        kinds = ", ".join(dict.fromkeys(each.kind for each in members))
        table.add_row(f"{row}: {kinds}" if found.waves else row, *(str(counted[state]) for state in states))
    return table


def _under_way(cells: "Sequence[Standing]") -> list[str]:
    """Return where cells run, and for what reasons the others stand in the queue."""
    running = (
        f"running{f' on {each.node}' if each.node else ''}: {each.name} ({each.title}){_try(each)}{_because(each)}"
        for each in cells
        if each.state == "running"
    )
    reasons = Counter((each.state, each.message) for each in cells if each.state in ("queued", "waiting", "unknown"))
    lines = [f"{number} {state}: {why or 'no reason given'}" for (state, why), number in reasons.items()]
    return [*_listed(running), *lines]


def _ended_badly(cells: "Sequence[Standing]") -> list[str]:
    """Return one line for each cell that failed or was lost, as it begins the list of what can be done."""
    bad = [each for each in cells if each.state in ("failed", "lost")]
    return [f"{each.name} ({each.title}){_try(each)}: {each.message}" for each in bad]


def _try(standing: "Standing") -> str:
    return f", try {standing.attempts}" if standing.attempts > 1 else ""


def _because(standing: "Standing") -> str:
    return f": {standing.message}" if standing.message else ""


def _listed(lines: Iterable[str]) -> list[str]:
    """Return the first lines, and how many more there are."""
    every = list(lines)
    more = len(every) - MANY
    return [*every[:MANY], f"and {more} more"] if more > 0 else every
