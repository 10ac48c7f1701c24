"""Commands about a study under way, from any machine that sees its folder: status, logs, cancel, retry."""

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from espalier.study_commands import (
    Folder,
    OwnProfile,
    Workers,
    check_here,
    launcher_called,
    queue_and_tell,
    run_and_report,
)
from espalier.terminal import complain, num_workers, resumable

if TYPE_CHECKING:
    from launchers._profile import Profile
    from launchers._standing import Overview
    from suite.plan import Cell
    from suite.progress import Standing

app = typer.Typer()

ALWAYS = ("done", "failed", "missing")
STATES = ("done", "running", "queued", "waiting", "unknown", "failed", "lost", "missing")
MANY = 8  # cells that are listed before the rest is counted
SHOWN_LOGS = 3  # without a name

CELL_HELP = "The beginning of a cell's name or key, or its title, as `espalier status` prints them."


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
        print(_plain(line))
    for note in found.notes:
        complain(note)


@app.command(epilog="Example: espalier logs runs/quickstart prune-4f1a --lines 50")
def logs(
    folder: Folder,
    cell: Annotated[str | None, typer.Argument(help=f"{CELL_HELP} By default what failed or was lost.")] = None,
    num_lines: Annotated[int, typer.Option("--lines", min=1, help="Lines from the end of each log.")] = 20,
) -> None:
    """Show why cells ended as they did: the end of the log, where it lies, and how to run just that cell."""
    from launchers._slurm_cluster import SlurmCluster
    from launchers._standing import overview
    from suite.progress import find_cell, read_plan

    plan, folder = read_plan(folder), folder.absolute()
    named = None if cell is None else find_cell(plan, cell)
    found = overview(plan, folder, SlurmCluster())
    pairs = list(zip(plan.cells, found.cells, strict=True))
    chosen = [pair for pair in pairs if pair[0] is named]
    for states in (("failed", "lost"), ("running",)):
        if named is None:
            chosen = chosen or [pair for pair in pairs if pair[1].state in states]
    if not chosen:
        print(f"study {plan.study.name}: nothing failed, nothing was lost, nothing runs")
    for pair in chosen[:SHOWN_LOGS]:
        _show_log(*pair, folder, num_lines)
    if len(chosen) > SHOWN_LOGS:
        print(f"and {len(chosen) - SHOWN_LOGS} more; name one: espalier logs {folder} {chosen[-1][0].id.name}")
    for note in found.notes:
        complain(note)


@app.command(epilog="Example: espalier retry /shared/me/quickstart --profile ./more-memory.toml")
def retry(
    folder: Folder,
    cells: Annotated[list[str] | None, typer.Argument(help=f"{CELL_HELP} By default all that failed.")] = None,
    launcher: Annotated[
        str | None,
        typer.Option(help="inline, ray or slurm; by default slurm for a study that was queued, else inline."),
    ] = None,
    profile: OwnProfile = None,
    workers: Workers = None,
    only: Annotated[bool, typer.Option("--only", help="Leave out the cells that wait for these.")] = False,
) -> None:
    """Try cells again that failed or were lost, or found an input missing that comes now, and those that wait for them.

    Whatever the reason, a Python error as well: who calls this has mended the cause. A study that was queued is queued
    again with the profile of its last submission, unless another one is given; then this command returns.
    """
    from launchers._retry import let_go, plan_again
    from launchers._slurm_cluster import SlurmCluster, require_slurm
    from launchers._standing import overview
    from launchers._submission import submissions
    from suite.progress import find_cell, read_plan
    from suite.store import Store

    plan, folder = read_plan(folder), folder.absolute()
    named = [find_cell(plan, each) for each in cells or []]
    queue = launcher == "slurm" or (launcher is None and bool(submissions(folder)))
    chosen = _profile_of(folder, profile) if queue else None
    run_on = None if queue else launcher_called(launcher or "inline", profile)
    found = overview(plan, folder, SlurmCluster())
    again = plan_again(plan, found.cells, named, only=only, queue=queue)
    if not again.cells:
        missing = sum(each.state == "missing" for each in found.cells)
        how = f": {_to_go_on(folder, queue)}" if missing else ""
        print(f"study {plan.study.name}: nothing failed and nothing was lost; {missing} cells are missing{how}")
        return
    if run_on is not None and launcher != "slurm":
        check_here(workers, again, folder)
    Store(folder).prepare()
    if chosen is not None:
        require_slurm()
        queue_and_tell(again, folder, chosen)
    elif run_on is not None:
        let_go(plan, found.cells, Store(folder), {each.name for each in submissions(folder)})
        run_and_report(again, folder, run_on, workers or num_workers())


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
    for note in done.notes:
        complain(note)
    if not done.jobs:
        print(f"study {plan.study.name}: nothing is queued, nothing was cancelled")
        return
    print(f"study {plan.study.name}: {len(done.jobs)} jobs cancelled, with {len(done.cells)} cells; none is left")
    for line in _listed(f"{cell.id.name} ({cell.title})" for cell in done.cells):
        print(line)
    print(f"What is committed stays. To queue the rest again: {_to_go_on(folder, queue=True)}")


def _to_go_on(folder: Path, queue: bool) -> str:
    """Return the command that computes what a study has never begun, or what was cancelled."""
    study, out = shlex.quote(f"{folder / 'study.toml'}"), shlex.quote(f"{folder}")
    return f"espalier submit {study} --profile P --out {out}" if queue else f"espalier run {study} --out {out}"


def _profile_of(folder: Path, given: str | None) -> "Profile":
    """Return the profile that is given, or the one that the study was queued with last.

    Raises:
        UserError: there is neither, or it is none.
    """
    from launchers._profile import Profile, read_profile
    from launchers._submission import submissions
    from suite.errors import UserError
    from suite.strict import validated

    submitted = submissions(folder)
    if given is not None:
        return read_profile(given)
    if not submitted:
        raise UserError(
            f"{folder} was never queued. Expected: --profile P with --launcher slurm; see espalier profiles."
        )
    return validated(Profile, submitted[-1].profile, f"the profile of submission {submitted[-1].name}")


def _show_log(cell: "Cell", standing: "Standing", folder: Path, num_lines: int) -> None:
    from launchers._logs import cell_log

    log = cell_log(cell, standing, folder, num_lines)
    print(_plain(f"{standing.name} ({standing.title}): {standing.state}{_because(standing)}"))
    for line in log.tries:
        print(f"  {_plain(line)}")
    for line in log.lines:
        print(f"  | {_plain(line)}")
    for path in log.paths:
        print(f"whole log: {path}")
    if not log.paths:
        print("no log: nothing of it has written one")
    if standing.state != "done":
        print(
            f"just this cell, here: espalier retry {shlex.quote(str(folder))} {standing.name} --only --launcher inline"
        )


def _plain(line: str) -> str:
    """Return a line without escape codes, which a log may hold."""
    return "".join(char if char.isprintable() else " " for char in line)


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
