import cmath
import math
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from data import Dataset, cubist, ensure, read_dataset

SHA256 = "0b2b721b1222c5e22fdd0e2b078ccc9e1600bf62f7f133ab4d34e103ea5eeb73"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESPALIER_DATA", str(tmp_path_factory.mktemp("data")))
        return read_dataset(ensure("cubist"))


def polygon(offset: float) -> list[complex]:
    """The vertices of one class, by the exponential function instead of square roots."""
    angles = [math.pi + 4 * math.pi * turn / 16 + 0.4 * math.pi for turn in range(17)]
    return [cmath.exp(1j * angle) * (10 * angle + math.pi + offset) for angle in angles]


def points(offset: float) -> list[complex]:
    vertices = polygon(offset)
    lengths = [abs(end - start) for start, end in pairwise(vertices)]
    found = []
    for start, end, length in zip(vertices[:-1], vertices[1:], lengths, strict=True):
        count = int(length / sum(lengths) * 25_000)
        found += [start + (end - start) * index / (count - 1) for index in range(count)]
    return found


def test_golden_identity(dataset: Dataset) -> None:
    # Results are keyed by it. When it has to change, change it here and say why in the change log.
    assert dataset.sha256 == SHA256


def test_counts_and_balance(dataset: Dataset) -> None:
    for split in dataset.splits.values():
        assert split.inputs.shape == (49_982, 2)
        assert split.inputs.dtype == np.float32
        assert Counter(split.targets.tolist()) == {0: 24_991, 1: 24_991}


def test_it_is_tested_on_what_it_is_trained_on(dataset: Dataset) -> None:
    assert list(dataset.splits) == ["train", "validation", "test"]
    for split in dataset.splits.values():
        assert np.array_equal(split.inputs, dataset.splits["train"].inputs)
        assert np.array_equal(split.targets, dataset.splits["train"].targets)


def test_the_points_are_those_of_the_formula(dataset: Dataset) -> None:
    raw = np.array([[point.real, point.imag] for offset in (15, -15) for point in points(offset)])
    single = raw.astype(np.float32).astype(np.float64)
    expected = (single - single.mean(axis=0)) / single.std(axis=0, ddof=1)
    train = dataset.splits["train"]
    assert np.abs(train.inputs - expected).max() < 1e-6
    assert train.targets.tolist() == [0] * 24_991 + [1] * 24_991


def test_the_spread_is_the_unbiased_one(dataset: Dataset) -> None:
    for column in dataset.splits["train"].inputs.T.tolist():
        values = [Fraction(value) for value in column]
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
        assert abs(float(mean)) < 1e-8
        # The biased one would be off by 1 / 49,982 = 2e-5.
        assert abs(float(variance) - 1) < 1e-6


def test_angles_radii_and_inner_vertices(dataset: Dataset) -> None:
    found = cubist._vertices(15.0)[:, 0] + 1j * cubist._vertices(15.0)[:, 1]
    assert np.abs(found - np.array(polygon(15.0))).max() < 1e-11
    assert abs(abs(found[0]) - (14 * math.pi + math.pi + 15)) < 1e-12
    turns = np.angle(found[1:] / found[:-1])
    assert np.abs(turns - math.pi / 4).max() < 1e-13
    for class_number in (0, 1):
        own = dataset.splits["train"].inputs[dataset.splits["train"].targets == class_number]
        repeated = [count for count in Counter(map(tuple, own.tolist())).values() if count > 1]
        assert repeated == [2] * 15  # where two segments meet


def test_the_classes_never_touch(dataset: Dataset) -> None:
    train = dataset.splits["train"]
    first, second = (train.inputs[train.targets == number][::20].astype(np.float64) for number in (0, 1))
    distances = np.hypot(first[:, None, 0] - second[None, :, 0], first[:, None, 1] - second[None, :, 1])
    assert distances.min() > 0.15  # about thirty units of radius, standardised
