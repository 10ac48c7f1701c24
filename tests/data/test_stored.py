import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data._stored import StoredSplit, StreamedDigest, check, digest, read_inputs
from data.hdf5 import FileRefused

PATH = Path("mine.h5")
PIXELS = np.arange(4 * 2 * 3, dtype=np.uint8).reshape(4, 2, 3)
FLOATS = np.arange(12, dtype=np.float32).reshape(4, 3)
TARGETS = np.array([0, 1, 2, 1])


def split(inputs: Any = FLOATS, targets: Any = TARGETS) -> StoredSplit:
    return StoredSplit(np.asarray(inputs), np.asarray(targets))


def test_defaults_of_a_bare_training_split() -> None:
    stored = check(PATH, {"train": split(PIXELS)}, {})
    assert stored.num_classes == 3
    assert (stored.mean.tolist(), stored.std.tolist()) == (0.0, 1.0)
    assert (stored.source, stored.licence) == ("not stated", "not stated")
    assert stored.moments == ((0.0,), (1.0,))


def test_pixels_stay_as_they_are_beside_what_they_are_to_be_normalised_with() -> None:
    stored = check(PATH, {"train": split(PIXELS)}, {"mean": [0.5, 0.25], "std": 2})
    assert stored.moments == ((0.5, 0.25), (2.0,))
    assert read_inputs(PATH, "train", stored) is PIXELS


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_whole_numbers_are_taken_as_they_are(dtype: type) -> None:
    tokens = FLOATS.astype(dtype)
    stored = check(PATH, {"train": split(tokens)}, {"mean": 5.0})
    assert stored.moments is None
    assert read_inputs(PATH, "train", stored) is tokens


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_taken_as_they_are(dtype: type) -> None:
    stored = check(PATH, {"train": split(FLOATS.astype(dtype))}, {"mean": 5.0, "std": 2.0})
    assert stored.moments is None
    inputs = read_inputs(PATH, "train", stored)
    assert inputs.dtype == np.float32
    assert np.array_equal(inputs, FLOATS)


REFUSED: dict[str, tuple[dict[str, StoredSplit], dict[str, Any]]] = {
    "has no group 'train'": ({"test": split()}, {}),
    "has a split named 'val'": ({"train": split(), "val": split()}, {}),
    "has train/inputs of dtype int16": ({"train": split(FLOATS.astype(np.int16))}, {}),
    "has train/inputs of dtype uint64": ({"train": split(FLOATS.astype(np.uint64))}, {}),
    "has train/inputs of dtype int8": ({"train": split(FLOATS.astype(np.int8))}, {}),
    "has train/inputs of dtype complex64": ({"train": split(FLOATS.astype(np.complex64))}, {}),
    "has train/inputs of shape (4,)": ({"train": split(FLOATS[:, 0])}, {}),
    "has train/inputs of shape (0, 3)": ({"train": split(FLOATS[:0], TARGETS[:0])}, {}),
    "has train/inputs of shape (4, 0)": ({"train": split(FLOATS[:, :0])}, {}),
    "has test/inputs of shape (0, 3)": ({"train": split(), "test": split(FLOATS[:0], TARGETS[:0])}, {}),
    "has test/inputs of dtype float32 and example shape (2,)": ({"train": split(), "test": split(FLOATS[:, :2])}, {}),
    "has test/inputs of dtype uint8": ({"train": split(), "test": split(FLOATS.astype(np.uint8))}, {}),
    "has train/targets of dtype float64": ({"train": split(targets=TARGETS * 1.0)}, {}),
    "dtype float64. Expected: integer class numbers. Convert them to int64.": (
        {"train": split(targets=TARGETS * 1.0)},
        {},
    ),
    "has train/targets of dtype float32 and shape (4, 3). Expected: integer class numbers. Take argmax(axis=1) of": (
        {"train": split(targets=np.eye(3, dtype=np.float32)[TARGETS])},
        {},
    ),
    "has train/targets of dtype bool": ({"train": split(targets=TARGETS == 1)}, {}),
    "has train/targets of shape (4, 1)": ({"train": split(targets=TARGETS[:, None])}, {}),
    "has train/targets of length 3": ({"train": split(targets=TARGETS[:3])}, {}),
    "has a negative class number in train/targets: -1": ({"train": split(targets=TARGETS - 1)}, {}),
    "has class number 2 in train/targets. Expected: 0 to 1": ({"train": split()}, {"classes": 2}),
    "has class number 5 in test/targets": ({"train": split(), "test": split(targets=TARGETS + 3)}, {}),
    "has class number 18446744073709551615": (
        {"train": split(targets=np.array([0, 1, 2, 2**64 - 1], np.uint64))},
        {"classes": 3},
    ),
    "has largest training target + 1 = 18446744073709551616": (
        {"train": split(targets=np.array([0, 1, 2, 2**64 - 1], np.uint64))},
        {},
    ),
    "has largest training target + 1 = 1": ({"train": split(targets=TARGETS * 0)}, {}),
    "has classes = 1": ({"train": split()}, {"classes": 1}),
    "has classes = 3.0": ({"train": split()}, {"classes": 3.0}),
    "has classes = three": ({"train": split()}, {"classes": "three"}),
    "has mean of dtype float64, shape (2,)": ({"train": split()}, {"mean": [0.1, 0.2]}),
    "has std of dtype <U1, shape ()": ({"train": split()}, {"std": "1"}),
    "has std = 0.0. Expected: finite numbers, above 0": ({"train": split()}, {"std": 0.0}),
    "has mean = nan. Expected: finite numbers.": ({"train": split()}, {"mean": np.nan}),
    "has mean = [0.0] and std = [1e-39]. Expected: numbers": ({"train": split(PIXELS)}, {"std": 1e-39}),
    "has mean = [0.0] and std = [1e-50]. Expected: numbers": ({"train": split(PIXELS)}, {"std": 1e-50}),
    "has mean = [1e+300, 0.0] and std = [1.0]": ({"train": split(PIXELS)}, {"mean": [1e300, 0.0]}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_content_that_makes_no_sense_is_refused(message: str) -> None:
    splits, attributes = REFUSED[message]
    with pytest.raises(FileRefused) as caught:
        check(PATH, splits, attributes)
    assert str(caught.value).startswith("mine.h5 ")
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_inputs_that_are_not_finite_in_float32_are_refused(value: float) -> None:
    inputs = FLOATS.astype(np.float64)
    inputs[2, 1] = inputs[3, 0] = value
    stored = check(PATH, {"train": split(inputs)}, {})
    with pytest.raises(FileRefused, match=r"has 2 values in train/inputs .* \(the first at \(2, 1\)\)"):
        read_inputs(PATH, "train", stored)


def test_digest_is_of_the_documented_bytes() -> None:
    stored = check(PATH, {"train": split(PIXELS)}, {"classes": 4, "mean": [0.5, 0.25]})
    expected = hashlib.sha256(b"classes 4\n")
    expected.update(b"mean <f8 (2,)\n" + np.array([0.5, 0.25]).tobytes())
    expected.update(b"std <f8 ()\n" + np.array(1.0).tobytes())
    expected.update(b"train/inputs |u1 (4, 2, 3)\n" + PIXELS.tobytes())
    expected.update(b"train/targets <i8 (4,)\n" + TARGETS.tobytes())
    assert digest(stored) == expected.hexdigest()


def test_digest_ignores_how_numbers_are_stored_and_sees_what_they_are() -> None:
    def of(train: StoredSplit, test: StoredSplit | None = None, **attributes: Any) -> str:
        return digest(check(PATH, {"train": train} if test is None else {"test": test, "train": train}, attributes))

    base = of(split())
    assert of(split(FLOATS.astype(">f4"), TARGETS.astype(np.uint8))) == base
    assert of(split(np.asfortranarray(FLOATS)), classes=3, source="me", mean=0.1) == base
    others = {
        of(split(FLOATS + 1)),
        of(split(targets=[0, 1, 2, 2])),
        of(split(), classes=4),
        of(split(), test=split()),
        of(split(FLOATS.astype(np.float64))),
        of(split(PIXELS)),
        of(split(PIXELS), mean=0.5),
        of(split(PIXELS), std=0.5),
    }
    assert len(others | {base}) == 9


@pytest.mark.parametrize("step", [1, 3, 4])
def test_the_digest_of_rows_that_come_one_after_another_is_the_same(step: int) -> None:
    stored = check(PATH, {"train": split(PIXELS), "test": split(PIXELS[::-1])}, {"mean": [0.5, 0.25], "std": 2})
    streamed = StreamedDigest(stored.num_classes)
    streamed.add("mean", np.array([0.5, 0.25]))
    streamed.add("std", np.array(2.0))
    for name, part in stored.splits.items():
        streamed.begin(f"{name}/inputs", part.inputs.dtype, part.inputs.shape)
        for start in range(0, len(part.inputs), step):
            streamed.rows(part.inputs[start : start + step])
        streamed.add(f"{name}/targets", part.targets)
    assert streamed.hexdigest() == digest(stored)
