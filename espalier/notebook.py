"""The same as `espalier limit` and `espalier spectrum` for a network in memory: for notebooks and scripts.

    import espalier
    found = espalier.limit(model, inputs, targets)
    found  # a notebook shows limits, their errors, and the spectrum

torch is loaded with the first call, not with `import espalier`.
"""

import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn

    from suite.curvature.quadrature import SpectralMeasure

DEFAULT_TOLERANCE = 0.005  # in sparsity

_PLOT_UNAVAILABLE = "<p>The plot needs the reports extra: pip install -e '.[reports]'.</p>"
_COLUMNS = {
    "sparsity_limit": "Sparsity limit",
    "error": "Error",
    "lower": "Feasible below",
    "upper": "Infeasible above",
    "at_half_tolerance": "At half the loss tolerance",
    "at_double_tolerance": "At double",
}
_NAMES = {"gaussian_width": "Gaussian width (published)", "statistical_dimension": "Statistical dimension"}


@dataclass(frozen=True, eq=False)
class Measured:
    """A spectrum or limits, as a notebook shows them.

    Attributes:
        values: JSON-able, what the command of the same name writes with --json.
        measure: the spectral measure; its `integrate` gives the mean of any function of the eigenvalues.
    """

    values: dict[str, Any]
    measure: "SpectralMeasure" = field(repr=False)

    def __getitem__(self, name: str) -> Any:
        """Return one of the values."""
        return self.values[name]

    def __repr__(self) -> str:
        """Return one line per value, long lists left out."""
        return "\n".join(f"{name}: {value}" for name, value in _short(self.values).items())

    def _repr_html_(self) -> str:
        """Return a table of the values over a plot of the spectrum, as one piece of HTML that refers to nothing."""
        facts = {name: value for name, value in _short(self.values).items() if not isinstance(value, dict)}
        told = "; ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in facts.items())
        style = "font-family:system-ui,sans-serif;font-size:13px;max-width:48em"
        return f'<div style="{style}">{_limits_table(self.values)}<p>{html.escape(told)}.</p>{_plot(self)}</div>'


def limit(
    model: "nn.Module",
    inputs: "Tensor",
    targets: "Tensor",
    *,
    tolerance: float = DEFAULT_TOLERANCE,
    loss_tolerance_nats: float | None = None,
    curvature: Literal["abs", "positive"] = "abs",
    seed: int = 0,
    dtype: Literal["float32", "float64"] = "float32",
) -> Measured:
    """Predict how sparse a trained network can get, to a stated tolerance.

    Args:
        model: returns logits (n, classes); copied, so it is left as it is.
        inputs: shape (n, ...), the training examples as the network takes them, un-augmented. Floats are given to it
            in dtype, whole numbers as they are: token ids for an embedding, but images have to be scaled to floats.
        targets: shape (n,), classes from 0.
        tolerance: error allowed in sparsity; steps, probes and examples are chosen to reach it.
        loss_tolerance_nats: how much the mean loss may rise; None: the standard deviation of mini-batch losses.
        curvature: what negative eigenvalues count as.
        seed: of the probes and of the subsets of examples.
        dtype: of the arithmetic.

    Raises:
        ValueError: the network does not take the inputs, has nothing to prune, or no fixed Hessian; one line with the
            repair.

    Cost: see suite.limits.subset_limits.limits_to_tolerance. Runs where the model lies.
    """
    from suite.measure import Effort, measure_limits

    source = _source(model, inputs, targets, dtype)
    found = measure_limits(
        source, Effort(seed=seed), loss_tolerance_nats=loss_tolerance_nats, curvature=curvature, tolerance=tolerance
    )
    return Measured(found.values, found.measure)


def spectrum(
    model: "nn.Module",
    inputs: "Tensor",
    targets: "Tensor",
    *,
    probes: int = 4,
    steps: int = 64,
    seed: int = 0,
    dtype: Literal["float32", "float64"] = "float32",
) -> Measured:
    """Measure the Hessian spectrum of a network by stochastic Lanczos quadrature.

    Args:
        model: see limit.
        inputs: see limit.
        targets: see limit.
        probes: random probes, at least 1.
        steps: Lanczos steps per probe, at least 1.
        seed: of the probes.
        dtype: of the arithmetic.

    Raises:
        ValueError: see limit.

    Cost: probes * steps Hessian-vector products over all examples.
    """
    from suite.cells._context import silent
    from suite.curvature.slq import inline_map
    from suite.measure import Effort, measure_spectrum, spectrum_as_json

    effort = Effort(num_probes=probes, num_lanczos_steps=steps, seed=seed)
    _, results, measure = measure_spectrum(_source(model, inputs, targets, dtype), effort, inline_map, silent)
    return Measured(spectrum_as_json(results, measure), measure)


def _source(model: "nn.Module", inputs: "Tensor", targets: "Tensor", dtype: str) -> Any:
    from suite.cells._network import DTYPES, MemoryNetwork
    from suite.errors import UserError

    if dtype not in DTYPES:
        raise UserError(f"dtype={dtype!r} is unknown. Expected: {' or '.join(DTYPES)}.")
    return MemoryNetwork.of(model, inputs, targets, dtype)


def _short(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in ("probes", "checks")}


def _limits_table(values: dict[str, Any]) -> str:
    """Return one row per predictor, in percent of the weights removed; nothing for a spectrum alone."""
    limits = {name: part for name, part in values.items() if isinstance(part, dict)}
    if not limits:
        return ""
    heads = "".join(f"<th>{html.escape(title)}</th>" for title in ("", *_COLUMNS.values()))
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(_NAMES.get(name, name))}</th>{_cells(part)}</tr>"
        for name, part in limits.items()
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _cells(part: dict[str, Any]) -> str:
    error = part.get("budget", {}).get("total", part.get("probe_standard_error"))
    upper = part["upper"] if part["upper"] < 1.0 else None  # a predictor that bounds one side only
    shown = {**part, "error": error, "upper": upper}
    texts = ["–" if shown.get(name) is None else f"{100 * shown[name]:.2f}%" for name in _COLUMNS]
    return "".join(
        f"<td style='white-space:nowrap'>{'± ' * (name == 'error' and text != '–')}{text}</td>"
        for name, text in zip(_COLUMNS, texts, strict=True)
    )


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _plot(measured: Measured) -> str:
    try:
        from reports.figures._render import render
        from reports.figures.spectrum import chart_of
    except ImportError:
        return _PLOT_UNAVAILABLE
    chart = chart_of(measured.measure, "slq" if measured.measure.sampled else "dense_hessian")
    return "" if chart is None else render(chart).svg.decode("utf-8")
