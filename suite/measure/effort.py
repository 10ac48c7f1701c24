"""How much is computed where no tolerance decides it, and what every measurement begins with."""

from dataclasses import dataclass

from suite.cells._network import Network
from suite.cells._sources import NetworkSource
from suite.curvature.memory import basis_placement, say_plan
from suite.curvature.operators import HessianOperator, SymmetricOperator
from suite.curvature.probes import Distribution
from suite.errors import UserError


@dataclass(frozen=True)
class Effort:
    """How much is computed: num_probes runs of num_lanczos_steps products, from a seed."""

    num_probes: int = 4
    num_lanczos_steps: int = 64
    seed: int = 0
    distribution: Distribution = "rademacher"


def hessian_of(source: NetworkSource, network: Network) -> HessianOperator:
    """Return the Hessian of a source whose network is loaded here already, over the examples that it names.

    Raises:
        UserError: the network is random, normalises by the batch, or detaches its weights; the module is named. Or it
            has fewer examples.
    """
    part = network.with_train_examples(source.num_examples, source.subset_seed)
    try:
        return part.hessian(source.dtype, operands=source.operands)
    except ValueError as error:
        raise UserError(str(error)) from error


def announce(operator: SymmetricOperator, num_lanczos_steps: int, num_runs: int = 1) -> None:
    """Log what memory the first runs will take where they are computed, here or in each worker, before they begin."""
    say_plan(operator, basis_placement(operator, num_lanczos_steps), num_lanczos_steps, num_runs)
