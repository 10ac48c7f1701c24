"""The command line, and the same for a network in memory: `espalier.limit` and `espalier.spectrum`."""

from espalier.notebook import Measured, limit, spectrum

__all__ = ["Measured", "limit", "spectrum"]
