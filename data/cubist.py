"""Cubist Spiral: 49,982 points in the plane on two interleaved polygonal spirals, for the sparsest networks there are.

Each class is a chain of 16 straight segments through 17 vertices (cos a, sin a) (r + 15), or (r - 15) for class 1, with
a = 1.4 pi, 1.4 pi + pi / 4, ..., 5.4 pi and r = 10 a + pi. A segment holds int(25,000 x its share of the chain's
length) points at equal distances, both ends included, so inner vertices stand twice: 24,991 points per class. No noise.

Inputs: shape (n, 2), float32, each coordinate standardised with its mean and unbiased standard deviation (n - 1).
Splits: train, validation and test are all the whole set, as the original tests on what it trains on. Nothing is held
out: an accuracy here says whether a network can represent the spirals, not whether it generalises.

Source: Zhang and Papyan (2024), "Sparsest Models Elude Pruning", ICML.
Differs: the common shift of all vertices is left out, for standardising removes it; moments are summed exactly, so
inputs may differ from the original's in float32's last digit. Directions are made of square roots, and whatever else
is computed is rounded as IEEE 754 says: the numbers are the same on every machine.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from data._stored import SPLIT_NAMES, StoredSplit

DESCRIPTION = "Cubist Spiral: 49,982 points on two spirals in the plane, 2 classes (generated; test = train)"
LICENCE = "none needed: points computed from a published formula"
SOURCE = (
    "Y. Zhang and V. Papyan (2024), Sparsest Models Elude Pruning: An Expose of Pruning's Current Capabilities, ICML"
)
INPUT_SHAPE = (2,)
NUM_CLASSES = 2

_NUM_VERTICES = 17
_POINTS_PER_CLASS = 25_000  # aimed at; what the segments' rounding down leaves are 24,991
_OFFSETS = (15.0, -15.0)  # of the radius, by class


def build() -> tuple[dict[str, StoredSplit], dict[str, Any]]:
    """Return three times the whole set, inputs (49982, 2) float32 and targets (49982,) int64, and the attributes."""
    chains = [_along(_vertices(offset)) for offset in _OFFSETS]
    inputs = _standardised(np.concatenate(chains).astype(np.float32))
    targets = np.repeat(np.arange(NUM_CLASSES), [len(chain) for chain in chains])
    splits = {name: StoredSplit(inputs, targets) for name in SPLIT_NAMES}
    return splits, {"classes": NUM_CLASSES, "source": SOURCE, "licence": LICENCE}


def _vertices(offset: float) -> npt.NDArray[np.float64]:
    """Return the vertices of one class, (17, 2)."""
    turns = np.arange(_NUM_VERTICES)
    radii = 10 * (1.4 + turns / 4) * math.pi + math.pi + offset
    return _directions()[turns % 8] * radii[:, None]


def _directions() -> npt.NDArray[np.float64]:
    """Return cosine and sine of 1.4 pi + k pi / 4 for k = 0 to 7, (8, 2).

    By square roots, which every machine rounds alike; a library's sine it may round another way.
    """
    diagonal = math.sqrt(0.5)
    x, y = -(math.sqrt(5) - 1) / 4, -math.sqrt(10 + 2 * math.sqrt(5)) / 4  # 1.4 pi is 252 degrees
    quarter = [(x, y), ((x - y) * diagonal, (x + y) * diagonal)]
    half = quarter + [(-y, x) for x, y in quarter]
    return np.array(half + [(-x, -y) for x, y in half])


def _along(vertices: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return equally spaced points on each segment of a chain, both of its ends included."""
    steps = np.diff(vertices, axis=0)
    lengths = [math.sqrt(x * x + y * y) for x, y in steps.tolist()]
    total = math.fsum(lengths)
    pieces = []
    for start, end, step, length in zip(vertices[:-1], vertices[1:], steps, lengths, strict=True):
        num_points = int(length / total * _POINTS_PER_CLASS)
        piece = start + (np.arange(num_points) / (num_points - 1))[:, None] * step
        piece[-1] = end  # which start + step may miss by a rounding
        pieces.append(piece)
    return np.concatenate(pieces)


def _standardised(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    columns = []
    for column in points.T.astype(np.float64):
        centred = column - math.fsum(column.tolist()) / len(column)
        std = math.sqrt(math.fsum((centred * centred).tolist()) / (len(column) - 1))
        columns.append(centred / std)
    return np.stack(columns, axis=1).astype(np.float32)
