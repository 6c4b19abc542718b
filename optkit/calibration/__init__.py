"""Ranges of activations, found by streaming calibration data through a model; no graph is rewritten here."""

from optkit.calibration.collect import Calibration, CalibrationSettings, Statistics, calibrate, check_enough
from optkit.calibration.doctor import diagnose
from optkit.calibration.inputs import InputStatistics
from optkit.calibration.ranges import Method, Range
from optkit.calibration.reuse import calibrated

__all__ = [
    "Calibration",
    "CalibrationSettings",
    "InputStatistics",
    "Method",
    "Range",
    "Statistics",
    "calibrate",
    "calibrated",
    "check_enough",
    "diagnose",
]
