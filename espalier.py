"""The command line: the one file that knows every room. Each command reads its input, calls a room, and prints."""

import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from suite.cells._network import UserNetwork

DONE, SOME_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="espalier",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="How sparse can a network get, which pruning method gets there, and at what cost?",
)
data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Data sets: what there is and where it lies.")
app.add_typer(data_app, name="data")

Study = Annotated[str, typer.Argument(help="A built-in study (see `espalier studies`) or the path of a TOML file.")]
Folder = Annotated[Path, typer.Argument(help="A study's folder, as made by `espalier run`.")]
Out = Annotated[Path | None, typer.Option(help="The study's folder; by default runs/NAME.")]
Launcher = Annotated[str, typer.Option(help="Where cells run: inline or ray.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Cells at a time; by default one per processor.")]
Actors = Annotated[int, typer.Option(min=1, help="Probes at a time; more than one runs them as Ray actors.")]
Settings = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a dotted key of the study or its tasks.")
]
Model = Annotated[str, typer.Option(metavar="MODULE:FUNCTION", help="A function that returns a torch.nn.Module.")]
Weights = Annotated[Path, typer.Option(help="A state dict: torch.save(model.state_dict(), FILE).")]
Data = Annotated[Path, typer.Option(help="HDF5 with train/inputs and train/targets.")]
Probes = Annotated[int, typer.Option(min=1, help="Random probes of the spectrum.")]
Steps = Annotated[int, typer.Option(min=1, help="Lanczos steps per probe.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads per worker; by default all, shared out.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the probes.")]
Dtype = Annotated[str, typer.Option(help="float32 or float64.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")]


@app.command(epilog="Example: espalier run quickstart --launcher ray --workers 2 --set training.epochs=20")
def run(
    study: Study,
    out: Out = None,
    launcher: Launcher = "inline",
    workers: Workers = None,
    override: Settings = [],  # noqa: B006  typer reads the default, nobody changes it
) -> None:
    """Run whatever is missing of a study, collect it, and write its report."""
    from launchers._events import launcher as find_launcher
    from launchers._live import Display
    from suite.plan import make_plan
    from suite.store import Store
    from suite.study import read_study

    chosen = find_launcher(launcher)
    plan = make_plan(*read_study(study, override))
    folder = (out or Path("runs") / plan.study.name).absolute()
    store = Store(folder)
    store.prepare()
    plan.freeze(folder)
    console = Console()
    console.print(f"study {plan.study.name}: {len(plan.cells)} cells in {folder}", highlight=False, soft_wrap=True)
    with _resumable(), Display(plan, console) as display:
        outcomes = chosen.run(plan, folder, workers=workers or _num_processors(), report=display.report)
    console.print(display.summary(), highlight=False)
    for failure in display.failures:
        _complain(failure)
    _collect_and_report(folder, console)
    if any(outcome.status in ("failed", "upstream_failed") for outcome in outcomes):
        _complain(f"some cells failed; mend the cause and run the same command again: {_command()}")
        raise typer.Exit(SOME_FAILED)


@app.command(epilog="Example: espalier status runs/quickstart --json")
def status(
    folder: Folder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, every cell with its state.")] = False,
) -> None:
    """Show how a study stands: cells done, failed and missing, from its folder alone."""
    from suite.progress import counts, read_plan, standings
    from suite.store import Store

    found = standings(read_plan(folder), Store(folder))
    if as_json:
        print(json.dumps({"counts": counts(found), "cells": [vars(standing) for standing in found]}, indent=1))
        return
    table = Table("cells", "done", "failed", "missing")
    for kind, states in counts(found).items():
        table.add_row(kind, *(str(states.get(state, 0)) for state in ("done", "failed", "missing")))
    Console().print(table)
    for standing in found:
        if standing.state == "failed":
            print(f"{standing.name} ({standing.title}): {standing.message}")


@app.command(epilog="Example: espalier collect runs/quickstart")
def collect(folder: Folder) -> None:
    """Copy every committed cell of a study into results.h5."""
    from suite.progress import read_plan
    from suite.results import collect as collect_cells
    from suite.store import Store

    collected = collect_cells(read_plan(folder), Store(folder), _command())
    print(f"{collected.num_committed} of {collected.num_planned} cells in {collected.path}")


@app.command(epilog="Example: espalier report runs/quickstart")
def report(folder: Folder) -> None:
    """Write tables, figures and the page from a study's results.h5, and print the main table."""
    _write_report(folder, Console())


@app.command(
    epilog="Example: espalier spectrum --model mynet:build --weights net.pt --data mine.h5 --json spectrum.json"
)
def spectrum(
    model: Model,
    weights: Weights,
    data: Data,
    probes: Probes = 4,
    steps: Steps = 64,
    workers: Actors = 1,
    threads: Threads = None,
    seed: Seed = 0,
    dtype: Dtype = "float32",
    json_file: Json = None,
) -> None:
    """Measure the Hessian spectrum of your own network by stochastic Lanczos quadrature."""
    from launchers.probes import probe_map
    from suite.measure import Effort, measure_spectrum, spectrum_as_json

    source, effort = _source(model, weights, data, dtype), Effort(probes, steps, seed)
    _check_writable(json_file)
    with probe_map(workers, threads) as probes_on, _progress() as progress:
        _, results, measure = measure_spectrum(source, effort, probes_on, progress)
    values = spectrum_as_json(results, measure)
    _show({name: value for name, value in values.items() if name != "probes"})
    _write_json(json_file, values)


@app.command(epilog="Example: espalier limit --model mynet:build --weights net.pt --data mine.h5 --json limit.json")
def limit(
    model: Model,
    weights: Weights,
    data: Data,
    loss_tolerance: Annotated[
        float | None, typer.Option(help="Nats the mean loss may rise; by default the spread of batch losses.")
    ] = None,
    curvature: Annotated[str, typer.Option(help="What negative eigenvalues count as: abs or positive.")] = "abs",
    probes: Probes = 4,
    steps: Steps = 64,
    workers: Actors = 1,
    threads: Threads = None,
    seed: Seed = 0,
    dtype: Dtype = "float32",
    json_file: Json = None,
) -> None:
    """Predict how sparse your own network can get: gaussian_width and statistical_dimension limits."""
    from launchers.probes import probe_map
    from suite.errors import UserError
    from suite.measure import Effort, measure_limits

    if loss_tolerance is not None and not 0 < loss_tolerance < float("inf"):
        raise UserError(f"--loss-tolerance {loss_tolerance} is no tolerance. Expected: a positive number of nats.")
    checked: Any = _one_of("--curvature", curvature, ("abs", "positive"))
    source, effort = _source(model, weights, data, dtype), Effort(probes, steps, seed)
    _check_writable(json_file)
    with probe_map(workers, threads) as probes_on, _progress() as progress:
        values = measure_limits(
            source,
            effort,
            loss_tolerance_nats=loss_tolerance,
            curvature=checked,
            probe_map=probes_on,
            progress=progress,
        )
    _show(values)
    _write_json(json_file, values)


@data_app.command("list", epilog="Example: espalier data list")
def data_list() -> None:
    """List all data sets, whether they are prepared, and where they lie."""
    from data import available, dataset_path, describe

    for name in available():
        path = dataset_path(name)
        state = "prepared" if path.exists() else "written on first use"
        print(f"{name:20}{describe(name).description}\n{'':20}{state}: {path}")


@app.command(epilog="Example: espalier doctor")
def doctor() -> None:
    """Check what this machine can do, what is missing, and how to mend it."""
    from launchers._survey import survey

    missing = False
    for finding in survey():
        missing |= finding.verdict == "missing"
        repair = f" -> {finding.repair}" if finding.repair else ""
        print(f"{finding.verdict:9}{finding.what:18}{finding.state}{repair}", flush=True)
    if missing:
        raise typer.Exit(SOME_FAILED)


def _lister(kind: str) -> Callable[[], None]:
    def show() -> None:
        from suite.catalogue import catalogue

        for name, description in catalogue(kind).items():
            print(f"{name:20}{description}".rstrip())

    show.__doc__ = f"List all {kind} that can be named, one line each."
    return show


for _kind in ("studies", "tasks", "methods", "models"):
    app.command(_kind, epilog=f"Example: espalier {_kind}")(_lister(_kind))


def _collect_and_report(folder: Path, console: Console) -> None:
    from suite.errors import ReportsMissing
    from suite.progress import read_plan
    from suite.results import collect as collect_cells
    from suite.store import Store

    collect_cells(read_plan(folder), Store(folder), _command())
    try:
        _write_report(folder, console)
    except ReportsMissing as error:  # the results are there: a study on a compute node needs no figures
        _complain(str(error))


def _write_report(folder: Path, console: Console) -> None:
    from suite.errors import ReportsMissing, UserError
    from suite.results import FILE_NAME

    try:
        from reports._results import Results
        from reports.terminal import terminal_table
        from reports.write import write_report
    except ImportError as error:
        raise ReportsMissing(f"The report needs {error.name}. Install it: pip install -e '.[reports]'.") from None
    if not (folder / FILE_NAME).exists():
        raise UserError(f"{folder} holds no {FILE_NAME}. Run first: espalier collect {folder}")
    with console.status("writing the report"):
        page = write_report(folder / FILE_NAME, folder / "report", command=_command())
    console.print(terminal_table(Results.read(folder / FILE_NAME)))
    console.print(f"report: {page}", highlight=False, soft_wrap=True)


def _source(model: str, weights: Path, data: Path, dtype: str) -> "UserNetwork":
    from suite.cells._network import DTYPES, UserNetwork
    from suite.environment import best_device

    return UserNetwork(model, weights, data, best_device(), _one_of("--dtype", dtype, DTYPES))


@contextmanager
def _resumable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        _complain(f"interrupted; what is committed stays. Go on with the same command: {_command()}")
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _progress() -> Iterator[Callable[[float, str], None]]:
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading", total=1.0)
        yield lambda fraction, text: bar.update(task, completed=fraction, description=text)


def _one_of(option: str, value: str, known: Any) -> str:
    from suite.errors import UserError, nearest

    if value not in known:
        raise UserError(f"{option} {value!r} is unknown.{nearest(value, known)} Expected: {' or '.join(known)}.")
    return value


def _check_writable(path: Path | None) -> None:
    from suite.errors import UserError

    if path is None:
        return
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{path} cannot be written. Give --json a file in a folder that exists and is yours.")


def _show(values: dict[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            parts = ", ".join(f"{part} {number:.4f}" for part, number in value.items() if number is not None)
            print(f"{name}: {parts}")
        else:
            print(f"{name}: {value:.6g}" if isinstance(value, float) else f"{name}: {value}")


def _write_json(path: Path | None, values: dict[str, Any]) -> None:
    from data.hdf5 import commit_bytes

    if path:
        text = json.dumps(values | {"command": _command()}, indent=1, allow_nan=False)
        commit_bytes(path.absolute(), f"{text}\n".encode())


def _num_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _command() -> str:
    return shlex.join(["espalier", *sys.argv[1:]])


def _complain(message: str) -> None:
    plain = "".join(
        char if char.isprintable() else " " for char in message
    )  # a name inside a file may hold escape codes
    print(f"espalier: {' '.join(plain.split())}", file=sys.stderr)


def main() -> None:
    """Run the command line; whatever the user can repair ends in one line and exit code 2."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app(standalone_mode=True)
    except Exception as error:
        from suite.errors import bad_input

        if (line := bad_input(error)) is None:
            raise
        _complain(line)
        sys.exit(BAD_INPUT)


def _interrupt(number: int, frame: object) -> None:
    del number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
