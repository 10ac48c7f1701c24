"""The arithmetic that a user names in one word, and what its roundings change in one product."""

import math
from typing import Any, NamedTuple

import torch

from suite.curvature.arithmetic import Operands, rounding_bias
from suite.curvature.probes import ProbeRequest, probe_vector
from suite.errors import UserError, nearest
from suite.networks.loaded import Network
from suite.networks.sources import NetworkSource

NUM_EXAMPLES = 16  # that the rounding is measured on; what it is relative to grows and falls with them alike


class Arithmetic(NamedTuple):
    """What a precision means: the type of vectors and sums, and what products round (see Execution)."""

    dtype: str
    operands: Operands


PRECISIONS = {
    "float32": Arithmetic("float32", "full"),
    "float64": Arithmetic("float64", "full"),
    "tf32": Arithmetic("float32", "tf32"),
    "bfloat16": Arithmetic("float32", "bfloat16"),
}


def arithmetic(precision: str, device: str, option: str = "precision") -> Arithmetic:
    """Return what a precision means on a device, "cpu" or "cuda"; option: how the user named it.

    Raises:
        UserError: there is none of that name, or this device does not have it.
    """
    if precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise UserError(f"{option} {precision!r} is unknown.{nearest(precision, PRECISIONS)} Expected: one of {known}.")
    if precision == "tf32" and not device.startswith("cuda"):
        raise UserError(
            f"{option} 'tf32' needs a CUDA device, and this is {device}. Expected: float32, float64 or bfloat16."
        )
    return PRECISIONS[precision]


def precision_as_json(source: NetworkSource, network: Network, seed: int) -> dict[str, Any]:
    """Return the precision's name, and what it changes in a product with one probe over a few examples.

    Returns:
        precision; rounding_bias: num_examples, relative_error, curvature, curvature_bias and relative_curvature_bias
        against float64 (see RoundingBias), None each where the product is zero or not finite; None for float64.

    Cost: two products over NUM_EXAMPLES examples.
    """
    used = Arithmetic(source.dtype, source.operands)
    name = next(each for each, means in PRECISIONS.items() if means == used)
    if name == "float64":
        return {"precision": name, "rounding_bias": None}
    few = network.with_train_examples(min(NUM_EXAMPLES, len(network.splits["train"].targets)), seed)
    coarse, fine = few.hessian(used.dtype, operands=used.operands), few.hessian("float64")
    probe = probe_vector(ProbeRequest(seed, 0, "rademacher", 1), fine.dim, torch.float64, fine.device)
    parts = ("relative_error", "curvature", "curvature_bias")
    try:
        bias = rounding_bias(coarse, fine, probe)
        values = {part: getattr(bias, part) for part in parts}
        values["relative_curvature_bias"] = bias.relative_curvature_bias if bias.curvature else math.nan
    except ValueError:  # the loss does not see the weights
        values = dict.fromkeys((*parts, "relative_curvature_bias"), math.nan)
    known = {part: value if math.isfinite(value) else None for part, value in values.items()}
    return {"precision": name, "rounding_bias": {"num_examples": fine.num_examples, **known}}
