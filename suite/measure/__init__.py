"""Spectrum and limits of a user's own network, without a study: what `espalier spectrum` and `limit` compute."""

from suite.measure.limits import MeasuredLimits, measure_limits
from suite.measure.spectrum import Effort, measure_spectrum, spectrum_as_json

__all__ = ["Effort", "MeasuredLimits", "measure_limits", "measure_spectrum", "spectrum_as_json"]
