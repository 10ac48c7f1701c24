"""How much is computed where no tolerance decides it, and what every measurement begins with."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from suite.curvature.growing_runs import GrowingInlineMap
from suite.curvature.memory import basis_placement, say_plan
from suite.curvature.operators import SymmetricOperator
from suite.curvature.probes import Distribution
from suite.curvature.slq import InlineMap, OperatorSource, ProbeMap
from suite.errors import UserError
from suite.networks.loaded import Network
from suite.networks.sources import HeldNetwork, NetworkSource


@dataclass(frozen=True)
class Effort:
    """How much is computed: num_probes runs of num_lanczos_steps products, from a seed."""

    num_probes: int = 4
    num_lanczos_steps: int = 64
    seed: int = 0
    distribution: Distribution = "rademacher"

    def __post_init__(self) -> None:
        """Check the counts.

        Raises:
            UserError: one is below 1.
        """
        for name, value in {"probes": self.num_probes, "steps": self.num_lanczos_steps}.items():
            if value < 1:
                raise UserError(f"{name}={value} is too small. Expected: at least 1.")


def announce(operator: SymmetricOperator, num_lanczos_steps: int, num_runs: int = 1) -> None:
    """Log what memory the first runs will take where they are computed, here or in each worker, before they begin."""
    say_plan(operator, basis_placement(operator, num_lanczos_steps), num_lanczos_steps, num_runs)


def loaded_once(source: NetworkSource, network: Network, probe_map: ProbeMap) -> NetworkSource:
    """Return the source that the map is to be given: where it computes in this process, the network that is here."""
    return HeldNetwork(source, network) if isinstance(probe_map, InlineMap | GrowingInlineMap) else source


@dataclass(frozen=True, eq=False)
class _Built:
    """The source of an operator that is there already."""

    operator: SymmetricOperator

    def build(self) -> SymmetricOperator:
        return self.operator


def built_once(source: NetworkSource, operator: SymmetricOperator, probe_map: ProbeMap) -> OperatorSource:
    """Return the source for a map that is asked many times: where that one would build each time, what is built."""
    return _Built(operator) if isinstance(probe_map, InlineMap) else source


@runtime_checkable
class ThreadedMap(Protocol):
    """A ProbeMap whose workers have a number of threads of their own."""

    @property
    def threads(self) -> int:
        """Processor threads per worker."""
        ...


def threads_of(probe_map: ProbeMap) -> int:
    """Return the processor threads that each worker of a map has: the last digits of a result hang on them."""
    return probe_map.threads if isinstance(probe_map, ThreadedMap) else torch.get_num_threads()
