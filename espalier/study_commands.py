"""Commands about studies: run, submit, collect, report."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from espalier.dry_run import tell_plan
from espalier.terminal import SOME_FAILED, command, complain, num_processors, num_workers, resumable, told_by_the_engine

if TYPE_CHECKING:
    from launchers._profile import Profile
    from suite.attempt import Outcome
    from suite.plan import Plan

app = typer.Typer()

Study = Annotated[str, typer.Argument(help="A built-in study (see `espalier studies`) or the path of a TOML file.")]
Folder = Annotated[Path, typer.Argument(help="A study's folder, as made by `espalier run`.")]
Out = Annotated[Path | None, typer.Option(help="The study's folder; by default runs/NAME.")]
Launcher = Annotated[str, typer.Option(help="Where cells run: inline, ray or slurm.")]
OwnProfile = Annotated[
    str | None,
    typer.Option(
        "--profile", help="How to queue on your cluster (see `espalier profiles`), or the path of a TOML file."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Cells at a time, with --launcher ray; by default one per GPU, or without any one per processor. Where "
        "there are more than GPUs, cells that train share a GPU; those that measure curvature take a whole one.",
    ),
]
Settings = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a dotted key of the study or its tasks.")
]
Smoke = Annotated[
    bool,
    typer.Option(
        "--smoke",
        help="Only try every cell: a few steps on generated data, in a folder of its own: its name with -smoke.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print cells, time, memory and disk, measured here, and do nothing.")
]
Tflops = Annotated[
    float | None,
    typer.Option(min=0.001, help="With --dry-run: what the GPU you mean sustains, in TFLOP/s; hours are then its own."),
]


@app.command(epilog="Example: espalier run quickstart --launcher ray --workers 2 --set training.epochs=20")
def run(
    study: Study,
    out: Out = None,
    launcher: Launcher = "inline",
    profile: OwnProfile = None,
    workers: Workers = None,
    override: Settings = [],  # noqa: B006  typer reads the default, nobody changes it
    smoke: Smoke = False,
    dry_run: DryRun = False,
    tflops: Tflops = None,
) -> None:
    """Run whatever is missing of a study, collect it, and write its report."""
    from launchers._folder_name import check_folder_name
    from launchers._fresh_folder import removed_if_refused
    from launchers._profile import read_profile

    run_on = launcher_called(launcher, profile)
    check = None if launcher == "slurm" else partial(check_here, workers)
    estimate = partial(tell_plan, study, override, out, workers=1 if launcher == "inline" else workers, check=check)
    chosen = None if profile is None else read_profile(profile)
    if _estimated(estimate, chosen, dry_run=dry_run, smoke=smoke, tflops=tflops):
        return
    plan, folder = _planned(study, override, out, is_smoke=smoke)
    if launcher == "slurm":
        check_folder_name(folder)
    if check is not None:
        check(plan, folder)
    with removed_if_refused(folder):
        _make_folder(plan, folder)
        run_and_report(plan, folder, run_on, workers or num_workers())


@app.command(epilog="Example: espalier submit quickstart --profile devcluster --out /shared/me/quickstart")
def submit(
    study: Study,
    profile: Annotated[str, typer.Option(help="See `espalier profiles`, or the path of a TOML file.")],
    out: Out = None,
    override: Settings = [],  # noqa: B006  typer reads the default, nobody changes it
    smoke: Smoke = False,
    dry_run: DryRun = False,
    tflops: Tflops = None,
) -> None:
    """Queue whatever is missing of a study on a Slurm cluster, and return."""
    from launchers._folder_name import check_folder_name
    from launchers._fresh_folder import removed_if_refused
    from launchers._profile import read_profile
    from launchers._slurm_cluster import require_slurm

    chosen = read_profile(profile)
    estimate = partial(tell_plan, study, override, out, workers=None)
    if _estimated(estimate, chosen, dry_run=dry_run, smoke=smoke, tflops=tflops):
        return
    require_slurm()
    plan, folder = _planned(study, override, out, is_smoke=smoke)
    check_folder_name(folder)
    with removed_if_refused(folder):
        _make_folder(plan, folder)
        queue_and_tell(plan, folder, chosen)


@app.command(epilog="Example: espalier collect runs/quickstart")
def collect(folder: Folder) -> None:
    """Copy every committed cell of a study into results.h5."""
    from suite.progress import read_plan
    from suite.results import collect as collect_cells
    from suite.store import Store

    collected = collect_cells(read_plan(folder), Store(folder), command())
    print(f"{collected.num_committed} of {collected.num_planned} cells in {collected.path}")


@app.command(epilog="Example: espalier report runs/quickstart")
def report(folder: Folder) -> None:
    """Write tables, figures and the page from a study's results.h5, and print the main table."""
    _write_report(folder, Console())


def run_and_report(plan: "Plan", folder: Path, run_on: "Callable[..., list[Outcome]]", workers: int) -> None:
    """Run whatever is missing of a plan, show it, collect the study and write its report.

    Raises:
        Exit: some cells failed.
    """
    from launchers._live import Display

    console = Console()
    console.print(f"study {plan.study.name}: {len(plan.cells)} cells in {folder}", highlight=False, soft_wrap=True)
    with resumable(), Display(plan, console) as display:
        outcomes = run_on(plan, folder, workers=workers, report=display.report)
    console.print(display.summary(), highlight=False)
    for failure in display.failures:
        complain(failure)
    _collect_and_report(folder, console)
    if any(outcome.status in ("failed", "upstream_failed") for outcome in outcomes):
        complain(f"some cells failed; run the command again, with the cause mended: {command()}")
        raise typer.Exit(SOME_FAILED)


def queue_and_tell(plan: "Plan", folder: Path, profile: "Profile") -> None:
    """Queue whatever is missing of a plan, and say what was queued."""
    from launchers._slurm_cluster import SlurmCluster
    from launchers.slurm import submit as queue

    console = Console()
    with console.status("queueing") as shown:
        done = queue(plan, folder, profile, SlurmCluster(), lambda so_far, total: shown.update(f"{so_far} of {total}"))
    if done is None:
        print(f"study {plan.study.name}: nothing to queue, every cell is done or in the queue already")
        return
    jobs = sum(len(array.ids) for array in done.arrays)
    line = (
        f"{sum(1 for _ in done.holders())} of {len(plan.cells)} cells queued, {jobs} jobs in {len(done.arrays)} arrays"
    )
    print(f"study {plan.study.name}: {line}, named {done.name}\nespalier status {folder}")


def launcher_called(launcher: str, profile: str | None) -> Callable[..., "list[Outcome]"]:
    """Return a launcher's run, with its profile where it needs one.

    Raises:
        UserError: unknown launcher or profile, or one without the other.
    """
    from launchers._events import launcher as find_launcher
    from launchers._profile import read_profile
    from suite.errors import UserError

    chosen = find_launcher(launcher)
    if not getattr(chosen, "NEEDS_PROFILE", False):
        if profile is not None:
            raise UserError(f"--profile {profile} is for a cluster. Expected: with --launcher slurm.")
        return chosen.run  # type: ignore[no-any-return]
    if profile is None:
        raise UserError(f"--launcher {launcher} needs --profile P. See: espalier profiles")
    return partial(chosen.run, profile=read_profile(profile))


def _estimated(
    estimate: Callable[..., None], profile: "Profile | None", *, dry_run: bool, smoke: bool, tflops: float | None
) -> bool:
    """Print the estimate, where --dry-run asks for it, and return whether it does: then there is nothing else to do.

    Raises:
        UserError: --smoke goes with it, which takes less time than an estimate; or --tflops, which nothing else reads,
            without it.
    """
    from suite.errors import UserError

    if dry_run and smoke:
        raise UserError("--dry-run and --smoke ask for two things. Expected: one of the two.")
    if tflops is not None and not dry_run:
        raise UserError(f"--tflops {tflops:g} is for an estimate. Expected: with --dry-run.")
    if dry_run:
        estimate(tflops=tflops, profile=profile)
    return dry_run


def _planned(study: str, override: list[str], out: Path | None, *, is_smoke: bool) -> "tuple[Plan, Path]":
    """Check a whole study; return its plan, or that of a small one, and its folder, there or not."""
    from suite.planner import make_plan
    from suite.smoke import SUFFIX, smoke
    from suite.study import read_study

    with told_by_the_engine():
        chosen, tasks = read_study(study, override)
    folder = (out or Path("runs") / chosen.name).absolute()
    if not is_smoke:
        return make_plan(chosen, tasks), folder
    small = smoke(chosen, tasks)
    for line in small.left_out:
        print(f"left out of the smoke: {line}")
    # Never the folder of the study itself, whoever named it: its frozen plan would be replaced.
    return make_plan(small.study, small.tasks), folder.with_name(folder.name + SUFFIX)


def check_here(workers: int | None, plan: "Plan", folder: Path) -> None:
    """Refuse what a local launcher cannot run on this machine.

    Raises:
        UserError: a cell would fail here, or the machine would.
    """
    from launchers._this_machine import check_this_machine, check_workers
    from suite.store import Store

    check_workers(workers, num_processors())
    check_this_machine(plan, Store(folder), num_processors())


def _make_folder(plan: "Plan", folder: Path) -> None:
    """Make a study's folder with the frozen plan.

    Raises:
        UserError: jobs of another plan are in the queue for it.
    """
    from launchers._other_plan import refuse_other_plan
    from launchers._slurm_cluster import SlurmCluster
    from suite.store import Store

    refuse_other_plan(plan, folder, SlurmCluster())
    Store(folder).prepare()
    plan.freeze(folder)


def _collect_and_report(folder: Path, console: Console) -> None:
    from suite.errors import ReportsMissing
    from suite.progress import read_plan
    from suite.results import collect as collect_cells
    from suite.store import Store

    collect_cells(read_plan(folder), Store(folder), command())
    try:
        _write_report(folder, console)
    except ReportsMissing as error:  # the results are there: a study on a compute node needs no figures
        complain(str(error))


def _write_report(folder: Path, console: Console) -> None:
    from suite.errors import ReportsMissing, UserError
    from suite.results import FILE_NAME

    try:
        from reports._results import Results
        from reports.terminal import terminal_report
        from reports.write import write_report
    except ImportError as error:
        raise ReportsMissing(f"The report needs {error.name}. Install it: pip install -e '.[reports]'.") from None
    if not (folder / FILE_NAME).exists():
        raise UserError(f"{folder} holds no {FILE_NAME}. Run first: espalier collect {folder}")
    with console.status("writing the report"):
        page = write_report(folder / FILE_NAME, folder / "report", command=command())
    console.print(terminal_report(Results.read(folder / FILE_NAME)))
    console.print(f"report: {page}", highlight=False, soft_wrap=True)
