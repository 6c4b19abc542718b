"""Ranges of activations, found by streaming calibration data through a model; no graph is rewritten here."""

from optkit.calibration.channels import PRODUCTS, channel_magnitudes
from optkit.calibration.collect import Calibration, CalibrationSettings, Statistics, calibrate, check_enough
from optkit.calibration.doctor import diagnose
from optkit.calibration.inputs import InputStatistics
from optkit.calibration.ranges import Method, Range
from optkit.calibration.reuse import calibrated

__all__ = [
    "PRODUCTS",
    "Calibration",
    "CalibrationSettings",
    "InputStatistics",
    "Method",
    "Range",
    "Statistics",
    "calibrate",
    "calibrated",
    "channel_magnitudes",
    "check_enough",
    "diagnose",
]
