import hashlib

import numpy as np
import pytest

import data
from data.archives.validation import validation_indices

OFFICIAL = {name: archive for name in data.available() if (archive := data.describe(name).archive)}
PINNED = [20, 24, 43, 52, 54, 60, 66, 77]
PINNED_SHA256 = "434a7a0459cdb01442ba09e153b6df4a75b3cdc62e0d92b5109a6c163964a344"
MNIST_COUNTS = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)  # of the official training labels


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_class_gives_its_share(name: str) -> None:
    official = OFFICIAL[name]
    num_train, wanted = official.num_examples["train"], official.num_validation
    counts = np.full(official.num_classes, num_train // official.num_classes)
    if name == "mnist":
        counts = np.array(MNIST_COUNTS)
    targets = np.random.default_rng(0).permutation(np.repeat(np.arange(official.num_classes), counts))
    chosen = validation_indices(name, targets, official.num_classes, wanted)
    assert len(chosen) == len(set(chosen.tolist())) == wanted
    assert (np.diff(chosen) > 0).all()
    taken = np.bincount(targets[chosen], minlength=official.num_classes)
    assert (abs(taken - counts * wanted / num_train) < 1).all()
    if name != "mnist":
        assert set(taken.tolist()) == {wanted // official.num_classes}


def test_the_choice_is_pinned() -> None:
    """Another rule would give other splits under the name of these: results would no longer compare."""
    targets = np.arange(1000) % 10
    chosen = validation_indices("cifar10", targets, 10, 100)
    assert chosen[:8].tolist() == PINNED
    digest = hashlib.sha256(chosen.astype("<i8").tobytes()).hexdigest()
    assert digest == PINNED_SHA256
    assert not np.array_equal(chosen, validation_indices("cifar100", targets, 10, 100))


def test_shares_that_do_not_divide_go_by_largest_remainder() -> None:
    targets = np.repeat([0, 1, 2], [50, 30, 20])
    for wanted, shares in ((10, [5, 3, 2]), (7, [4, 2, 1]), (1, [1, 0, 0]), (9, [4, 3, 2])):
        chosen = validation_indices("mnist", targets, 3, wanted)
        assert np.bincount(targets[chosen], minlength=3).tolist() == shares


def test_a_class_keeps_one_example_to_train_on() -> None:
    targets = np.array([0, 1, 1, 2])
    chosen = validation_indices("mnist", targets, 3, 3)
    assert np.bincount(targets[chosen], minlength=3).tolist() == [0, 1, 0]
