"""Whether a network is worth a measurement: its loss and accuracy, and a warning where something looks wrong."""

import logging
import math

from suite.errors import UserError
from suite.networks.loaded import Network
from suite.problem import evaluate

logger = logging.getLogger(__name__)

_NEAR_CHANCE = 1.5  # times the accuracy of guessing the most frequent class
_ROUNDING = 1e-6  # of the mean loss: a spread below it is rounding


def quality_as_json(network: Network, loss_tolerance_nats: float) -> dict[str, float]:
    """Return mean_loss_nats and accuracy over the training split, and warn of what no trained network shows.

    Raises:
        UserError: the loss is not finite.

    Cost: one forward pass over all examples.
    """
    train = network.splits["train"]
    found = evaluate(network.model, train)
    if not math.isfinite(found.loss):
        raise UserError(
            f"The mean loss is {found.loss}: the weights, finite as they are, have diverged. Expected: a finite loss. "
            "Give weights from earlier in training."
        )
    most_frequent = float(train.targets.bincount().max()) / len(train.targets)
    if found.accuracy < min(1.0, _NEAR_CHANCE * most_frequent) and most_frequent < 1.0 / _NEAR_CHANCE:
        logger.warning(
            "the network is right on %.1f%% of the training data, the most frequent class is %.1f%%. Do the weights "
            "belong to this model, and the data's scale and classes to the weights?",
            100 * found.accuracy,
            100 * most_frequent,
        )
    if loss_tolerance_nats < _ROUNDING * found.loss:
        logger.warning(
            "the loss tolerance, %.3g nats, is less than the rounding of the mean loss, %.3g nats. Give a larger one.",
            loss_tolerance_nats,
            found.loss,
        )
    return {"mean_loss_nats": found.loss, "accuracy": found.accuracy}
