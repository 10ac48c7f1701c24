"""Spectrum and limits of one network: what `espalier spectrum` and `limit` compute; cells share the search."""

from suite.measure.beside import Beside
from suite.measure.effort import Effort
from suite.measure.limits import MeasuredLimits, measure_limits
from suite.measure.precision import PRECISIONS, arithmetic
from suite.measure.spectrum import MeasuredSpectrum, measure_spectrum

__all__ = [
    "PRECISIONS",
    "Beside",
    "Effort",
    "MeasuredLimits",
    "MeasuredSpectrum",
    "arithmetic",
    "measure_limits",
    "measure_spectrum",
]
