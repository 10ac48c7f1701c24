"""Random start vectors that depend on a seed and an index alone, never on who computes them."""

import hashlib
import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

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
