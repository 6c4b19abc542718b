"""How the range of a tensor is chosen: what a stage is told, without what computes it."""

from enum import StrEnum

from pydantic import Field

from optkit.record import Record


class Method(StrEnum):
    """How a range is chosen."""

    MINMAX = "minmax"
    MOVING_AVERAGE = "moving-average"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"

    @property
    def needs_histogram(self) -> bool:
        """Whether the extremes of the samples do not suffice."""
        return self not in (Method.MINMAX, Method.MOVING_AVERAGE)


class CalibrationSettings(Record):
    """How ranges are chosen."""

    method: Method = Method.MINMAX
    percentile: float = Field(default=99.999, gt=50, le=100)  # what the percentile method keeps, of 100
    sample: int = Field(default=1, ge=1)  # histograms count one element in so many; extremes are always exact
    symmetric: bool = False  # ranges of equal ends and 255 levels, as TensorRT takes them
