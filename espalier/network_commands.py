"""Commands about a user's own network: spectrum and limit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from espalier.network_options import check_group, check_positive, check_threads, named_as_given
from espalier.notebook import DEFAULT_TOLERANCE, NO_FINITE_RUN
from espalier.terminal import (
    SOME_FAILED,
    check_writable,
    command,
    complain,
    one_of,
    progress_bar,
    resumable,
    show,
    unwritable,
    write_json,
)

if TYPE_CHECKING:
    from suite.measure import Beside
    from suite.networks.sources import UserNetwork

app = typer.Typer()

Model = Annotated[str, typer.Option(metavar="MODULE:FUNCTION", help="A function that returns a torch.nn.Module.")]
Weights = Annotated[Path, typer.Option(help="A state dict: torch.save(model.state_dict(), FILE).")]
Data = Annotated[
    Path,
    typer.Option(help="HDF5 with train/inputs and train/targets, or a data set by its name (`espalier data list`)."),
]
LossTolerance = Annotated[
    float | None, typer.Option(help="Nats the mean loss may rise; by default the spread of batch losses.")
]
Probes = Annotated[int | None, typer.Option(min=1, help="Fixed effort: random probes (4).")]
Steps = Annotated[int | None, typer.Option(min=1, help="Fixed effort: Lanczos steps per probe (64).")]
Examples = Annotated[int | None, typer.Option(min=1, help="Fixed effort: random examples (all).")]
Checkpoint = Annotated[
    Path | None,
    typer.Option(help="With a tolerance: a folder; the same command goes on from what it saved there."),
]
Actors = Annotated[
    int,
    typer.Option(
        min=1,
        help="Probes at a time; more than one runs them as Ray actors, where there are GPUs on one each at most. Equal "
        "numbers for any number of workers need an equal --threads.",
    ),
]
Group = Annotated[
    int, typer.Option(min=1, help="Workers that compute each product together, each over its share of the data.")
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processor threads per worker; by default all, shared out among the workers. Another number of threads "
        "changes the last digits.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the probes, and of which examples are taken.")]
Precision = Annotated[
    str,
    typer.Option(
        help="Of the products: float32, float64, or with a fixed effort also tf32 (CUDA) or bfloat16. What it changes "
        "in one is measured against float64 and told."
    ),
]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")]


@app.command(
    epilog="Example: espalier spectrum --model mynet:build --weights net.pt --data mine.h5 --tolerance 0.01 --rows "
    "--json spectrum.json"
)
def spectrum(
    model: Model,
    weights: Weights,
    data: Data,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Error allowed in the sparsity limits that the spectrum gives; steps, probes and examples are chosen "
            "to reach it. By default the effort is fixed."
        ),
    ] = None,
    loss_tolerance: LossTolerance = None,
    rows: Annotated[
        bool, typer.Option("--rows", help="Also the L1 norms of the Hessian's rows, one per magnitude percentile.")
    ] = False,
    probes: Probes = None,
    steps: Steps = None,
    examples: Examples = None,
    checkpoint: Checkpoint = None,
    workers: Actors = 1,
    group_size: Group = 1,
    threads: Threads = None,
    seed: Seed = 0,
    precision: Precision = "float32",
    json_file: Json = None,
) -> None:
    """Measure the Hessian spectrum of your own network by stochastic Lanczos quadrature."""
    from launchers.probes import Keeping, probe_map
    from suite.errors import UserError
    from suite.measure import Effort, measure_spectrum

    _check_effort(tolerance, {"--probes": probes, "--steps": steps, "--examples": examples}, checkpoint)
    for option, value in {"--checkpoint": checkpoint, "--loss-tolerance": loss_tolerance}.items():
        if value is not None and tolerance is None:
            raise UserError(f"{option} {value} goes with a tolerance. Expected: --tolerance beside it, or neither.")
    check_positive("--loss-tolerance", loss_tolerance, "a positive number of nats")
    check_threads(threads)
    check_group(workers, group_size)
    source, effort = _source(model, weights, data, precision), Effort(probes or 4, steps or 64, seed)
    check_writable(json_file)
    _make_folder(checkpoint)
    keeping = Keeping(runs=tolerance is not None, folder=checkpoint and checkpoint.absolute())
    with (
        named_as_given(),
        resumable(_left_by_an_interrupt(tolerance is not None, checkpoint)),
        probe_map(workers, threads, group_size, keeping=keeping) as probes_on,
        progress_bar() as progress,
    ):
        found = measure_spectrum(
            source.with_examples(examples, seed),
            effort,
            rows=rows,
            tolerance=tolerance,
            loss_tolerance_nats=loss_tolerance,
            probe_map=probes_on,
            progress=progress,
        )
    show(found.values)
    write_json(json_file, found.values)
    if found.values["status"] == "nonfinite":
        complain(NO_FINITE_RUN if found.measure is None else "A product of some probes was not finite; see status.")
        raise typer.Exit(SOME_FAILED)


@app.command(
    epilog="Example: espalier limit --model mynet:build --weights net.pt --data mine.h5 --tolerance 0.005 --faithful "
    "--masked --json limit.json"
)
def limit(
    model: Model,
    weights: Weights,
    data: Data,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Error allowed in sparsity; steps, probes and examples are chosen to reach it. By default 0.005, "
            "unless --probes, --steps or --examples fix the effort."
        ),
    ] = None,
    loss_tolerance: LossTolerance = None,
    curvature: Annotated[str, typer.Option(help="What negative eigenvalues count as: abs or positive.")] = "abs",
    faithful: Annotated[
        bool,
        typer.Option("--faithful", help="Also the published recipe: one probe, 128 steps, grid density, whole radii."),
    ] = False,
    masked: Annotated[
        bool,
        typer.Option(
            "--masked", help="Also the quadratic limit of the actual magnitude masks, by conjugate gradients."
        ),
    ] = False,
    probes: Probes = None,
    steps: Steps = None,
    examples: Examples = None,
    checkpoint: Checkpoint = None,
    workers: Actors = 1,
    group_size: Group = 1,
    threads: Threads = None,
    seed: Seed = 0,
    precision: Precision = "float32",
    json_file: Json = None,
) -> None:
    """Predict how sparse your own network can get, to a stated tolerance."""
    from launchers.probes import Keeping, probe_map
    from suite.measure import Effort, measure_limits

    fixed = {"--probes": probes, "--steps": steps, "--examples": examples}
    is_fixed = _check_effort(tolerance, fixed, checkpoint)
    allowed = None if is_fixed else tolerance or DEFAULT_TOLERANCE
    check_positive("--loss-tolerance", loss_tolerance, "a positive number of nats")
    check_threads(threads)
    check_group(workers, group_size)
    checked: Any = one_of("--curvature", curvature, ("abs", "positive"))
    beside: dict[Beside, bool] = {"faithful": faithful, "masked": masked}
    source, effort = _source(model, weights, data, precision), Effort(probes or 4, steps or 64, seed)
    check_writable(json_file)
    _make_folder(checkpoint)
    keeping = Keeping(runs=allowed is not None, folder=checkpoint and checkpoint.absolute())
    with (
        named_as_given(),
        resumable(_left_by_an_interrupt(allowed is not None, checkpoint)),
        probe_map(workers, threads, group_size, keeping=keeping) as probes_on,
        progress_bar() as progress,
    ):
        limits = measure_limits(
            source.with_examples(examples, seed),
            effort,
            loss_tolerance_nats=loss_tolerance,
            curvature=checked,
            tolerance=allowed,
            beside=[name for name, is_chosen in beside.items() if is_chosen],
            probe_map=probes_on,
            progress=progress,
        )
    show(limits.values)
    write_json(json_file, limits.values)


def _check_effort(tolerance: float | None, fixed: dict[str, int | None], checkpoint: Path | None) -> bool:
    """Refuse options that exclude each other; return whether the effort is fixed."""
    from suite.errors import UserError

    given = [option for option, value in fixed.items() if value is not None]
    if tolerance is not None and given:
        raise UserError(
            f"--tolerance {tolerance} chooses what {given[0]} fixes. Expected: one of the two; leave {given[0]} out."
        )
    if checkpoint is not None and checkpoint.exists() and not checkpoint.is_dir():
        raise UserError(f"--checkpoint {checkpoint} is a file. Expected: a folder, or nothing there yet.")
    if given and checkpoint is not None:
        raise UserError(f"--checkpoint goes with a tolerance. Expected: no {given[0]}.")
    if tolerance is not None and not 0.0 < tolerance < 1.0:
        raise UserError(f"--tolerance {tolerance} is no error in sparsity. Expected: a number between 0 and 1.")
    return bool(given)


def _left_by_an_interrupt(is_search: bool, checkpoint: Path | None) -> str:
    """Return what an interrupt leaves, and how to go on."""
    if checkpoint is not None:
        return f"the runs that are saved in {checkpoint} stay. Go on with the same command: {command()}"
    if is_search:
        return "nothing was saved; give --checkpoint DIR to be able to go on."
    return "nothing was saved; --tolerance with --checkpoint DIR is able to go on."


def _source(model: str, weights: Path, data: Path, precision: str) -> "UserNetwork":
    from data import available, ensure
    from suite.environment import best_device
    from suite.measure import arithmetic
    from suite.networks.sources import UserNetwork

    device = best_device()
    dtype, operands = arithmetic(precision, device, "--precision")
    data = ensure(str(data)) if str(data) in available() else data
    return UserNetwork(model, weights, data, device, dtype, operands=operands)


def _make_folder(checkpoint: Path | None) -> None:
    """Make the folder of saved runs, and a file in it for a moment: before anything is paid for that could be lost."""
    from suite.errors import UserError

    if checkpoint is None:
        return
    try:
        checkpoint.mkdir(parents=True, exist_ok=True)
        reason = unwritable(checkpoint)
    except OSError as error:
        reason = error.strerror or type(error).__name__
    if reason:
        raise UserError(f"--checkpoint {checkpoint} cannot be written: {reason}. Expected: a folder of your own.")
