"""The settings of calibration, without the code that calibrates."""

from enum import StrEnum

from pydantic import Field

from optkit.record import Record


class CalibrationMethod(StrEnum):
    """The method that chooses a range."""

    MINMAX = "minmax"
    MOVING_AVERAGE = "moving-average"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"

    @property
    def needs_histogram(self) -> bool:
        """Whether the method needs more than the extremes of the samples."""
        return self not in (CalibrationMethod.MINMAX, CalibrationMethod.MOVING_AVERAGE)


class CalibrationSettings(Record):
    """The settings that choose ranges."""

    method: CalibrationMethod = CalibrationMethod.MINMAX
    percentile: float = Field(default=99.999, gt=50, le=100)  # percent of the values that the percentile method keeps
    sample: int = Field(default=1, ge=1)  # histograms count one of this many elements; extremes are always exact
    symmetric: bool = False  # symmetric ranges with 255 levels, as for TensorRT
