"""Commands about a user's own network: spectrum and limit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from espalier.notebook import DEFAULT_TOLERANCE
from espalier.terminal import check_writable, one_of, progress_bar, show, write_json

if TYPE_CHECKING:
    from suite.cells._network import UserNetwork

app = typer.Typer()

Model = Annotated[str, typer.Option(metavar="MODULE:FUNCTION", help="A function that returns a torch.nn.Module.")]
Weights = Annotated[Path, typer.Option(help="A state dict: torch.save(model.state_dict(), FILE).")]
Data = Annotated[Path, typer.Option(help="HDF5 with train/inputs and train/targets.")]
Probes = Annotated[int, typer.Option(min=1, help="Random probes of the spectrum.")]
Steps = Annotated[int, typer.Option(min=1, help="Lanczos steps per probe.")]
Actors = Annotated[int, typer.Option(min=1, help="Probes at a time; more than one runs them as Ray actors.")]
Group = Annotated[
    int, typer.Option(min=1, help="Workers that compute each product together, each over its share of the data.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads per worker; by default all, shared out.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the probes.")]
Dtype = Annotated[str, typer.Option(help="float32 or float64.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")]


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
    group_size: Group = 1,
    threads: Threads = None,
    seed: Seed = 0,
    dtype: Dtype = "float32",
    json_file: Json = None,
) -> None:
    """Measure the Hessian spectrum of your own network by stochastic Lanczos quadrature."""
    from launchers.probes import probe_map
    from suite.measure import Effort, measure_spectrum, spectrum_as_json

    source, effort = _source(model, weights, data, dtype), Effort(probes, steps, seed)
    check_writable(json_file)
    with probe_map(workers, threads, group_size) as probes_on, progress_bar() as progress:
        _, results, measure = measure_spectrum(source, effort, probes_on, progress)
    values = spectrum_as_json(results, measure)
    show({name: value for name, value in values.items() if name != "probes"})
    write_json(json_file, values)


@app.command(epilog="Example: espalier limit --model mynet:build --weights net.pt --data mine.h5 --tolerance 0.005")
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
    loss_tolerance: Annotated[
        float | None, typer.Option(help="Nats the mean loss may rise; by default the spread of batch losses.")
    ] = None,
    curvature: Annotated[str, typer.Option(help="What negative eigenvalues count as: abs or positive.")] = "abs",
    probes: Annotated[int | None, typer.Option(min=1, help="Fixed effort: random probes (4).")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Fixed effort: Lanczos steps per probe (64).")] = None,
    examples: Annotated[int | None, typer.Option(min=1, help="Fixed effort: random examples (all).")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A folder; the same command goes on from what it saved there.")
    ] = None,
    workers: Actors = 1,
    group_size: Group = 1,
    threads: Threads = None,
    seed: Seed = 0,
    dtype: Dtype = "float32",
    json_file: Json = None,
) -> None:
    """Predict how sparse your own network can get, to a stated tolerance."""
    from launchers.probes import Keeping, probe_map
    from suite.measure import Effort, measure_limits

    fixed = {"--probes": probes, "--steps": steps, "--examples": examples}
    allowed = _tolerance(tolerance, fixed, checkpoint)
    _check_positive("--loss-tolerance", loss_tolerance, "a positive number of nats")
    checked: Any = one_of("--curvature", curvature, ("abs", "positive"))
    source, effort = _source(model, weights, data, dtype), Effort(probes or 4, steps or 64, seed)
    check_writable(json_file)
    keeping = Keeping(runs=allowed is not None, folder=checkpoint and checkpoint.absolute())
    with probe_map(workers, threads, group_size, keeping=keeping) as probes_on, progress_bar() as progress:
        limits = measure_limits(
            source.with_examples(examples, seed),
            effort,
            loss_tolerance_nats=loss_tolerance,
            curvature=checked,
            tolerance=allowed,
            probe_map=probes_on,
            progress=progress,
        )
    show({name: value for name, value in limits.values.items() if name != "checks"})
    write_json(json_file, limits.values)


def _tolerance(tolerance: float | None, fixed: dict[str, int | None], checkpoint: Path | None) -> float | None:
    """Return the tolerance to reach, or None for a fixed effort."""
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
    return None if given else tolerance or DEFAULT_TOLERANCE


def _check_positive(option: str, value: float | None, expected: str) -> None:
    from suite.errors import UserError

    if value is not None and not 0 < value < float("inf"):
        raise UserError(f"{option} {value} is no tolerance. Expected: {expected}.")


def _source(model: str, weights: Path, data: Path, dtype: str) -> "UserNetwork":
    from suite.cells._network import DTYPES, UserNetwork
    from suite.environment import best_device

    return UserNetwork(model, weights, data, best_device(), one_of("--dtype", dtype, DTYPES))
