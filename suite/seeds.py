"""Randomness: one seed per cell, and from it independent generators by name.

A generator depends on (seed, names) alone, so the data order of epoch 7 is the same whether a cell ran through or
was resumed at epoch 7, and drawing more numbers for the mask never shifts the initial weights.
"""

import hashlib

import torch


def derived_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed: the head of sha256 over the seed and the names."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """Return a CPU generator for one purpose, named for example ("order", epoch)."""
    return torch.Generator().manual_seed(derived_seed(seed, *names))
