"""Ranges of activations, found by streaming calibration data through a model; no graph is rewritten here."""

from optkit.calibration.collect import collect_ranges
from optkit.calibration.methods import Method, Range

__all__ = ["Method", "Range", "collect_ranges"]
