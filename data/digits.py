"""Digits: 1,797 real handwritten digits of 8 x 8 pixels, small enough to train on in seconds and offline.

They are the test part of the UCI collection as scikit-learn ships it: 13 writers, not named per example, so the
splits are by example and not by writer. Pixels count dark points of a 4 x 4 block, 0 to 16.

Splits: 1257 train, 180 validation, 360 test, stratified, fixed in data/splits/digits.json together with their rule.
Inputs: shape (n, 64), standardised with one mean and one standard deviation, those of all training pixels.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data._stored import StoredSplit
from data.hdf5 import refusal

DESCRIPTION = "1,797 handwritten digits, 8 x 8 pixels, 10 classes (from scikit-learn, offline)"
LICENCE = "CC BY 4.0"
SOURCE = (
    "E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, "
    "https://archive.ics.uci.edu/dataset/80; the 1,797 examples of its test part, as shipped by scikit-learn"
)
INPUT_SHAPE = (64,)
NUM_CLASSES = 10

_SPLIT_FILE = Path(__file__).parent / "splits" / "digits.json"


def build() -> tuple[dict[str, StoredSplit], dict[str, Any]]:
    """Return the splits, inputs (n, 64) float32 and targets (n,) int64, and the file's attributes."""
    from sklearn.datasets import load_digits

    pixels, targets = load_digits(return_X_y=True)
    indices = _split_indices(len(pixels))
    mean, std = _moments(pixels[indices["train"]])
    inputs = ((pixels - mean) / std).astype(np.float32)
    splits = {name: StoredSplit(inputs[index], targets[index].astype(np.int64)) for name, index in indices.items()}
    return splits, {"classes": NUM_CLASSES, "mean": mean, "std": std, "source": SOURCE, "licence": LICENCE}


def _split_indices(num_examples: int) -> dict[str, npt.NDArray[np.int64]]:
    fixed = json.loads(_SPLIT_FILE.read_text(encoding="utf-8"))
    if fixed["num_examples"] != num_examples:
        wrong = f"splits {fixed['num_examples']} examples, scikit-learn has {num_examples}"
        raise refusal(_SPLIT_FILE, wrong, "the same number", "Install a scikit-learn that ships the 1,797 digits.")
    return {name: np.array(fixed[name], dtype=np.int64) for name in ("train", "validation", "test")}


def _moments(pixels: npt.NDArray[np.float64]) -> tuple[float, float]:
    # Pixels are whole numbers, so sums in integers are exact and the file's bytes the same on every machine.
    whole = pixels.astype(np.int64)
    total, total_of_squares = int(whole.sum()), int((whole * whole).sum())
    return total / whole.size, math.sqrt(whole.size * total_of_squares - total * total) / whole.size
