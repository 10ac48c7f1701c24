"""Masks, allocations of a weight budget to layers, and the pruning methods."""
