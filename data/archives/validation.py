"""The validation split: a fixed part of the official training examples, the same on every machine.

Rule: every class gives its share of the official size, by largest remainders, and always keeps one example to train
on; within a class those are taken whose sha256("NAME/INDEX") is smallest, INDEX being the place in the official
training data, from 0. No random generator takes part, whose numbers another version could change.
"""

import hashlib

import numpy as np
import numpy.typing as npt


def validation_indices(
    name: str, targets: npt.NDArray[np.int64], num_classes: int, num_validation: int
) -> npt.NDArray[np.int64]:
    """Return which training examples are for validation, in ascending order.

    Args:
        name: of the data set.
        targets: (n,), class numbers of all official training examples, in their order.
        num_classes: how many classes there are.
        num_validation: how many examples to take; fewer are taken where a class has only one.
    """
    counts = np.bincount(targets, minlength=num_classes).tolist()
    chosen: list[int] = []
    for target, share in enumerate(_shares(counts, num_validation)):
        members = np.flatnonzero(targets == target).tolist()
        chosen += sorted(members, key=lambda index: (_rank(name, index), index))[:share]
    return np.array(sorted(chosen), np.int64)


def _shares(counts: list[int], total: int) -> list[int]:
    num_examples = sum(counts)
    shares = [total * count // num_examples for count in counts]
    # What is left of each division, the largest first; of equal ones the lower class.
    order = sorted(range(len(counts)), key=lambda target: (-(total * counts[target] % num_examples), target))
    for target in order[: total - sum(shares)]:
        shares[target] += 1
    return [min(share, max(0, count - 1)) for share, count in zip(shares, counts, strict=True)]


def _rank(name: str, index: int) -> bytes:
    return hashlib.sha256(f"{name}/{index}".encode()).digest()
