"""Commands about a user's own network: spectrum and limit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    with probe_map(workers, threads) as probes_on, progress_bar() as progress:
        _, results, measure = measure_spectrum(source, effort, probes_on, progress)
    values = spectrum_as_json(results, measure)
    show({name: value for name, value in values.items() if name != "probes"})
    write_json(json_file, values)


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
    checked: Any = one_of("--curvature", curvature, ("abs", "positive"))
    source, effort = _source(model, weights, data, dtype), Effort(probes, steps, seed)
    check_writable(json_file)
    with probe_map(workers, threads) as probes_on, progress_bar() as progress:
        values = measure_limits(
            source,
            effort,
            loss_tolerance_nats=loss_tolerance,
            curvature=checked,
            probe_map=probes_on,
            progress=progress,
        )
    show(values)
    write_json(json_file, values)


def _source(model: str, weights: Path, data: Path, dtype: str) -> "UserNetwork":
    from suite.cells._network import DTYPES, UserNetwork
    from suite.environment import best_device

    return UserNetwork(model, weights, data, best_device(), one_of("--dtype", dtype, DTYPES))
