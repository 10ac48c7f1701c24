"""What a Lanczos run starts from: random vectors, or the smallest weights. Never dependent on who computes it."""

import hashlib
import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from suite.curvature.operators import SymmetricOperator
from suite.pruning.masks import order_of_removal

Distribution = Literal["rademacher", "normal", "sphere"]


@dataclass(frozen=True)
class ProbeRequest:
    """What one probe is asked to do; small, so that it can be sent to any worker.

    Attributes:
        seed: of the whole set of probes.
        index: of this probe, from 0.
        distribution: "rademacher": entries +1 or -1; "normal": independent standard normal entries; "sphere": uniform
            on the sphere of radius sqrt(dim). All have E[v v'] = I.
        num_lanczos_steps: at least 1, at most the operator's dimension.
    """

    seed: int
    index: int
    distribution: Distribution
    num_lanczos_steps: int

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: the distribution is unknown, index is negative, or num_lanczos_steps is below 1.
        """
        known = get_args(Distribution)
        if self.distribution not in known:
            raise ValueError(f"No probe distribution named '{self.distribution}'. Known: {', '.join(known)}.")
        if self.index < 0:
            raise ValueError(f"index={self.index} is negative. Expected: index >= 0.")
        if self.num_lanczos_steps < 1:
            raise ValueError(f"num_lanczos_steps={self.num_lanczos_steps} is too small. Expected: at least 1.")

    @property
    def name(self) -> str:
        """Return the name of the run, its number of steps aside: requests of one name continue one run."""
        return f"probe-{self.seed}-{self.index}-{self.distribution}"


@dataclass(frozen=True)
class RemovedWeightsRequest:
    """A Lanczos run that starts from the weights which magnitude pruning removes first; small, as ProbeRequest is.

    Attributes:
        num_removed: at least 1, at most the operator's dimension; the removed weights must not all be zero.
        num_lanczos_steps: at least 1, at most the operator's dimension.
        seed: of no meaning, for whoever reports a request by seed and index.
    """

    num_removed: int
    num_lanczos_steps: int
    seed: ClassVar[int] = 0

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: one of them is below 1.
        """
        for field in ("num_removed", "num_lanczos_steps"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)} is too small. Expected: at least 1.")

    @property
    def index(self) -> int:
        """Return num_removed: what tells such a run from its like."""
        return self.num_removed

    @property
    def name(self) -> str:
        """Return the name of the run, its number of steps aside: requests of one name continue one run."""
        return f"removed-{self.num_removed}"


RunRequest = ProbeRequest | RemovedWeightsRequest


def start_vector(request: RunRequest, operator: SymmetricOperator) -> Tensor:
    """Return the vector that a request's run starts from, shape (dim,), in the operator's type and on its device.

    Raises:
        ValueError: num_removed is above the operator's dimension, or the operator knows no weights.

    Cost: probe_vector, or one sort of the weights.
    """
    if isinstance(request, ProbeRequest):
        return probe_vector(request, operator.dim, operator.dtype, operator.device)
    if request.num_removed > operator.dim:
        raise ValueError(f"num_removed={request.num_removed} is too large. Expected: at most dim={operator.dim}.")
    weights = getattr(operator, "weights", None)
    if weights is None:
        raise ValueError(f"{type(operator).__name__} has no weights() to remove. Expected: the Hessian of a network.")
    return removed_weights(weights(), request.num_removed)


def removed_weights(weights: Tensor, num_removed: int) -> Tensor:
    """Return the num_removed smallest weights in their places, zero elsewhere; among equals the higher index first.

    The same weights as suite.limits.removal.MagnitudeOrder: widening to float64 keeps order and ties.

    Args:
        weights: shape (dim,), finite.
        num_removed: at most dim.
    """
    removed = order_of_removal(weights.abs())[:num_removed]
    delta = torch.zeros_like(weights)
    delta[removed] = weights[removed]
    return delta


def probe_vector(request: ProbeRequest, dim: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Draw the probe of (seed, index).

    Drawn on the CPU and in float64 before conversion, so every device, every dtype (up to rounding) and every way of
    sharding sees the same vector. The number of Lanczos steps does not enter: more steps continue the same run.

    Returns:
        Shape (dim,), not normalised.

    Cost: 8 * dim bytes of host memory for a moment ("rademacher": dim bytes).
    """
    generator = torch.Generator().manual_seed(probe_seed(request.seed, request.index))
    if request.distribution == "rademacher":
        signs = torch.randint(0, 2, (dim,), generator=generator, dtype=torch.int8)
        return signs.mul_(2).sub_(1).to(device=device, dtype=dtype)
    vector = torch.randn(dim, generator=generator, dtype=torch.float64)
    if request.distribution == "sphere":
        vector *= math.sqrt(dim) / torch.linalg.vector_norm(vector)
    return vector.to(device=device, dtype=dtype)


def probe_seed(seed: int, index: int) -> int:
    """Return the generator's seed for one probe, below 2^63; hashed, so that neighbours share nothing."""
    digest = hashlib.sha256(f"{seed}/probes/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
