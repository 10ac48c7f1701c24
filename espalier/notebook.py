"""The same as `espalier limit` and `espalier spectrum` for a network in memory: for notebooks and scripts.

    import espalier
    found = espalier.limit(model, inputs, targets)
    found  # a notebook shows limits, their errors, and the spectrum

torch is loaded with the first call, not with `import espalier`.
"""

import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from espalier.limits_table import COLUMNS, NAMES, limits_in, row_of

if TYPE_CHECKING:
    from torch import nn

    from suite.curvature.quadrature import SpectralMeasure
    from suite.measure import Beside
    from suite.networks.given import Array

DEFAULT_TOLERANCE = 0.005  # in sparsity
Precision = Literal["float32", "float64", "tf32", "bfloat16"]

NO_FINITE_RUN = (
    "No product was finite. Likely: (a) the loss overflows in this precision, (b) the weights diverged in training."
)
_PLOT_UNAVAILABLE = "<p>The plot needs the reports extra: pip install -e '.[reports]'.</p>"


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
        facts["rounding_error_of_a_product"] = (self.values.get("rounding_bias") or {}).get("relative_error")
        told = "; ".join(
            f"{name.replace('_', ' ')} {_number(value)}" for name, value in facts.items() if value is not None
        )
        style = "font-family:system-ui,sans-serif;font-size:13px;max-width:48em"
        return f'<div style="{style}">{_limits_table(self.values)}<p>{html.escape(told)}.</p>{_plot(self)}</div>'


def limit(
    model: "nn.Module",
    inputs: "Array",
    targets: "Array",
    *,
    tolerance: float = DEFAULT_TOLERANCE,
    loss_tolerance_nats: float | None = None,
    curvature: Literal["abs", "positive"] = "abs",
    faithful: bool = False,
    masked: bool = False,
    seed: int = 0,
    precision: Precision = "float32",
) -> Measured:
    """Predict how sparse a trained network can get, to a stated tolerance.

    Args:
        model: returns logits (n, classes); copied, so it is left as it is.
        inputs: shape (n, ...), the training examples as the network takes them, un-augmented: a tensor, a numpy array
            or a list. Floats are given to it in dtype, whole numbers as they are: token ids for an embedding, but
            images have to be scaled to floats.
        targets: shape (n,), classes from 0: a tensor, a numpy array or a list.
        tolerance: error allowed in sparsity; steps, probes and examples are chosen to reach it.
        loss_tolerance_nats: how much the mean loss may rise; None: the standard deviation of mini-batch losses.
        curvature: what negative eigenvalues count as.
        faithful: also follow the published recipe with its own numerics (see suite.limits.faithful).
        masked: also search the quadratic limit of the actual magnitude masks (see suite.limits.masked_quadratic).
        seed: of the probes and of the subsets of examples.
        precision: of the products, "float32" or "float64": the others round more than a tolerance can promise. What it
            changes is in `rounding_bias`.

    Raises:
        ValueError: the network does not take the inputs, has nothing to prune, or no fixed Hessian; one line with the
            repair.

    Cost: see suite.limits.subset_limits.limits_to_tolerance. Runs where the model lies.
    """
    from suite.measure import Effort, measure_limits

    chosen: dict[Beside, bool] = {"faithful": faithful, "masked": masked}
    found = measure_limits(
        _source(model, inputs, targets, precision),
        Effort(seed=seed),
        loss_tolerance_nats=loss_tolerance_nats,
        curvature=curvature,
        tolerance=tolerance,
        beside=[name for name, is_chosen in chosen.items() if is_chosen],
    )
    return Measured(found.values, found.measure)


def spectrum(
    model: "nn.Module",
    inputs: "Array",
    targets: "Array",
    *,
    probes: int | None = None,
    steps: int | None = None,
    tolerance: float | None = None,
    rows: bool = False,
    seed: int = 0,
    precision: Precision = "float32",
) -> Measured:
    """Measure the Hessian spectrum of a network by stochastic Lanczos quadrature.

    Args:
        model: see limit.
        inputs: see limit.
        targets: see limit.
        probes: random probes, at least 1; None: 4, or what the tolerance asks for.
        steps: Lanczos steps per probe, at least 1; None: 64, or what the tolerance asks for.
        tolerance: error allowed in the sparsity limits that the spectrum gives; steps, probes and examples are chosen
            to reach it. None: a fixed effort.
        rows: also compute L1 norms of the Hessian's rows, one per magnitude percentile.
        seed: of the probes.
        precision: see limit.

    Raises:
        ValueError: see limit; also where no run has a finite product.

    Cost: probes * steps Hessian-vector products over all examples; rows: 100 more.
    """
    from suite.errors import UserError
    from suite.measure import Effort, measure_spectrum

    for name, value in {"probes": probes, "steps": steps}.items():
        if tolerance is not None and value is not None:
            raise UserError(f"tolerance={tolerance} chooses what {name}={value} fixes. Expected: one of the two.")
    effort = Effort(4 if probes is None else probes, 64 if steps is None else steps, seed)
    source = _source(model, inputs, targets, precision)
    found = measure_spectrum(source, effort, rows=rows, tolerance=tolerance)
    if found.measure is None:
        raise UserError(NO_FINITE_RUN)
    return Measured(found.values, found.measure)


def _source(model: "nn.Module", inputs: "Array", targets: "Array", precision: str) -> Any:
    from suite.measure import arithmetic
    from suite.networks.sources import MemoryNetwork

    device = next((parameter.device.type for parameter in model.parameters()), "cpu")
    return MemoryNetwork.of(model, inputs, targets, *arithmetic(precision, device))


def _short(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values without lists, also within what is a dictionary itself."""
    return {
        name: _short(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if not isinstance(value, list)
    }


def _limits_table(values: dict[str, Any]) -> str:
    """Return one row per predictor, in percent of the weights removed; nothing for a spectrum alone."""
    limits = limits_in(values)
    if not limits:
        return ""
    heads = "".join(f"<th>{html.escape(title)}</th>" for title in ("", *COLUMNS.values()))
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(NAMES.get(name, name))}</th>{_cells(part)}</tr>"
        for name, part in limits.items()
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _cells(part: dict[str, Any]) -> str:
    texts = {name: "–" if value is None else f"{100 * value:.2f}%" for name, value in row_of(part).items()}
    return "".join(
        f"<td style='white-space:nowrap'>{'± ' * (name == 'error' and text != '–')}{text}</td>"
        for name, text in texts.items()
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
