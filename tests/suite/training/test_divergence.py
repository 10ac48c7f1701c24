"""A loss that leaves the finite numbers is told with its step; high losses alone are no end."""

import math
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from suite.errors import TrainingDiverged
from suite.splits import Split
from suite.study import Recipe
from suite.training import checkpoint
from suite.training.checkpoint import Trainings
from suite.training.divergence import EpochLosses
from suite.training.hooks import Hooks
from suite.training.loop import train

Make = Callable[..., Recipe]
CPU = torch.device("cpu")


class Told(nn.Module):
    """Gives, step by step, the losses that it is told: two classes, all targets 0."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.losses, self.step = losses, 0

    def forward(self, inputs: Tensor) -> Tensor:
        loss = self.losses[min(self.step, len(self.losses) - 1)]
        self.step += self.training
        odds = math.log(math.expm1(loss)) if math.isfinite(loss) and loss < 500 else loss
        logits = torch.tensor([0.0, odds], dtype=torch.float64).expand(len(inputs), 2)
        return logits + 0 * self.anchor


def splits() -> dict[str, Split]:
    return {"train": Split(torch.zeros(30, 1), torch.zeros(30, dtype=torch.int64))}


@pytest.mark.parametrize("bad", [1, 2, 4, 11])
def test_the_step_epoch_and_loss_before_are_told(recipe: Make, bad: int) -> None:
    losses = [0.5 + 0.01 * step for step in range(12)]
    losses[bad] = math.nan
    made = recipe(epochs=4, batch_size=10, learning_rate=0.5, warmup_epochs=1)
    with pytest.raises(TrainingDiverged) as error:
        train(Told(losses), splits(), made, 0)
    before = losses[bad - 1] if bad % 3 else sum(losses[bad - 3 : bad]) / 3
    rate = 0.5 * min(1, (bad + 1) / 3)
    assert str(error.value) == (
        f"The loss is nan at step {bad + 1} of 12 (epoch {bad // 3 + 1}); it was {before:.4g} nats before. "
        f"Likely: a learning rate of {rate:.3g} is too high. Lower training.learning_rate (it is 0.5)."
    )


def test_a_first_loss_that_is_not_finite_points_to_the_data(recipe: Make) -> None:
    with pytest.raises(
        TrainingDiverged, match=r"step 1 of 12 \(epoch 1\), the first one\. Likely: an input, or a weight"
    ):
        train(Told([math.nan]), splits(), recipe(epochs=4, batch_size=10), 0)


def test_a_missing_warm_up_and_bfloat16_are_named(recipe: Make) -> None:
    losses = EpochLosses(recipe(epochs=4, batch_size=10), 30, 0, CPU)
    losses.values[:] = torch.tensor([0.7, math.inf, 0.0])
    with pytest.raises(TrainingDiverged) as error:
        losses.mean(1, "bfloat16", [])
    assert str(error.value).endswith(
        "Likely: a learning rate of 0.1 without a warm-up is too high, or bfloat16 is too coarse. Lower "
        'training.learning_rate (it is 0.1), or set training.warmup_epochs = 1, or set training.precision = "float32".'
    )
    assert "\n" not in str(error.value)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)  # as Ray carries it


def test_a_training_that_begins_within_an_epoch_means_over_what_it_did(recipe: Make) -> None:
    losses = EpochLosses(recipe(epochs=4, batch_size=10), 25, 4, CPU)
    losses.values[:] = torch.tensor([math.nan, 1.0, 4.0])
    assert losses.mean(4, "float32", []) == 1.0
    assert losses.mean(5, "float32", []) == pytest.approx((10 * 1.0 + 5 * 4.0) / 15)  # the last batch is smaller


def test_an_exploded_loss_ends_the_training(recipe: Make) -> None:
    losses = [0.6] * 3 + [0.5] * 3 + [20.0] * 6
    with pytest.raises(
        TrainingDiverged, match=r"The mean loss of epoch 3 is 20 nats \(step 9 of 12\), after 0.5 in an e"
    ):
        train(Told(losses), splits(), recipe(epochs=4, batch_size=10), 0)


@pytest.mark.parametrize(
    "losses",
    [
        [30.0] * 6 + [0.5] * 6,  # high from the start
        [0.5] * 3 + [5.0] * 3 + [0.5] * 6,  # a spike of seven times guessing
        [0.75] * 3 + [30.0] * 9,  # never better than guessing
    ],
)
def test_high_losses_are_no_end(recipe: Make, losses: list[float]) -> None:
    history = train(Told(losses), splits(), recipe(epochs=4, batch_size=10), 0)
    assert history.curves["train_loss"] == pytest.approx([losses[0], losses[3], losses[6], losses[9]])


def test_a_state_after_it_is_never_saved(recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SHORTEST_S", 0.0)
    monkeypatch.setattr(checkpoint, "MOST_TIME", 1.0)
    losses, steps = [0.5] * 4 + [math.nan] * 8, []
    for expected in ([1, 2, 3, 4, 5], [5]):  # a second attempt goes on before the step, and ends at it again
        steps.clear()
        stage = Trainings(tmp_path, "told").stage("training")
        model = Told(losses)
        model.step = expected[0] - 1
        hooks = Hooks(after_step=lambda model=model: steps.append(model.step))
        with pytest.raises(TrainingDiverged, match="at step 5 of 12"):
            train(model, splits(), recipe(epochs=4, batch_size=10), 0, hooks=hooks, stage=stage)
        assert steps == expected


@pytest.mark.parametrize(
    ("changes", "cause", "repair"),
    [
        ({"weight_decay": 1e9}, "a weight decay of 1e+09 is too high", "Lower training.weight_decay, below 20."),
        ({"l1": 1e30}, "an L1 penalty of 1e+30 is too high", "Lower training.l1, far below 2."),
        ({"weight_decay": 19.0, "l1": 1.9}, "a learning rate of 0.05 is too high", "Lower training.learning_rate (it"),
        (
            {"l1": 1e-3, "learning_rate": 1e30},
            "a learning rate of 1e+30 is too high",
            "Lower training.learning_rate (it",
        ),
        ({"l1": 1e30, "optimiser": "adam"}, "a learning rate of 0.05 is too high", "Lower training.learning_rate (it"),
    ],
)
@pytest.mark.parametrize("is_finite", [False, True])
def test_a_penalty_that_carries_weights_past_zero_is_named(
    recipe: Make, changes: dict[str, object], cause: str, repair: str, is_finite: bool
) -> None:
    made = recipe(**{"epochs": 4, "batch_size": 10, "learning_rate": 0.05, "warmup_epochs": 1, **changes})
    losses = EpochLosses(made, 30, 0, CPU)
    losses.values[:] = torch.tensor([0.6, math.inf, 0.0])
    with pytest.raises(TrainingDiverged) as error:
        losses.check_exploded(8, 20.0, [0.6, 0.5], 2) if is_finite else losses.mean(7, "float32", [0.6, 0.5])
    assert error.value.cause.startswith(f"Likely: {cause}")
    assert error.value.repair.startswith(repair)


def test_a_real_training_ends_by_its_weight_decay_from_above_its_bound(recipe: Make) -> None:
    inputs = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    data = {"train": Split(inputs, torch.arange(30) % 2)}
    made = recipe(epochs=200, batch_size=10, learning_rate=0.05, momentum=0.0, weight_decay=1e3)
    with torch.random.fork_rng(devices=[]):
        model = nn.Linear(4, 2)
    with pytest.raises(TrainingDiverged, match="a weight decay of 1000 is too high"):
        train(model, data, made, 0)
