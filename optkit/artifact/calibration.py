"""The results of calibration as records in the passport: the ranges, and a diagnosis of the data."""

from collections.abc import Sequence

from pydantic import Field

from optkit.messages import count
from optkit.record import Record


class Moments(Record):
    """Mean and standard deviation of an input over many samples."""

    input: str
    samples: int
    mean: float
    deviation: float
    mean_error: float  # the standard error of `mean`


class Shift(Record):
    """An input that differs between the calibration data and the evaluation data by more than chance explains."""

    calibration: Moments
    evaluation: Moments

    def __str__(self) -> str:
        mine, right = self.calibration, self.evaluation
        return (
            f"input {mine.input!r}: {mine.mean:.3g} ± {mine.deviation:.3g} in the calibration data and {right.mean:.3g} ± "
            f"{right.deviation:.3g} in the evaluation data: calibrate on data that resembles the evaluation data"
        )


class Growth(Record):
    """The share of their final width that the ranges had after some samples, averaged over the tensors."""

    samples: int
    share: float


class Outlier(Record):
    """A sample that stretches ranges far beyond the width that all other samples need."""

    sample: int
    tensors: int  # how many ranges it stretches to 1.5 times and more
    worst: str  # the tensor whose range it stretches most
    stretch: float  # its width as a multiple of the width that the others need


class LongTail(Record):
    """A tensor whose range is mostly used by few values."""

    tensor: str
    inner_share: float  # the share of its min-max width that contains 99.9 % of the values
    clipped_share: float  # the share of the values outside the chosen range, which saturate


class Diagnosis(Record):
    """The calibration doctor's results for data and activations; samples are counted from 0 in the order of the data."""

    samples: int
    growth: tuple[Growth, ...]
    settled_after: int  # samples, after which 95 % of the ranges stayed within 1 % of their final width
    suggested_samples: int
    outliers: tuple[Outlier, ...]  # worst first
    duplicates: tuple[tuple[int, ...], ...]  # groups of equal samples
    constants: dict[str, tuple[int, ...]]  # float input -> the samples in which it has one value throughout
    moments: tuple[Moments, ...]  # of the float inputs
    long_tails: tuple[LongTail, ...] | None  # worst first; None where no histograms were collected

    def notes(self) -> list[str]:
        """Return the diagnosis as short notes."""
        growing = self.suggested_samples > self.samples
        state = "were still growing at the end" if growing else f"stopped growing after {self.settled_after}"
        advice = f"try {self.suggested_samples}" if growing else f"{self.suggested_samples} are enough"
        lines = [f"{self.samples} samples; the ranges {state}: {advice}"]
        if self.outliers:
            worst = self.outliers[0]
            lines.append(
                f"{count(len(self.outliers), 'outlier')}: sample {worst.sample} stretches "
                f"{count(worst.tensors, 'range')}, {worst.worst!r} to {worst.stretch:.1f} times its width"
            )
        if self.duplicates:
            extra = sum(len(group) - 1 for group in self.duplicates)
            lines.append(f"{count(extra, 'duplicate')}: samples {_numbers(self.duplicates[0])} are equal")
        lines += [
            f"input {name!r} is constant in {count(len(samples), 'sample')}: {_numbers(samples)}"
            for name, samples in self.constants.items()
        ]
        return lines


class CalibrationKey(Record):
    """Everything that ranges depend on; with another key they are stale."""

    method: str
    percentile: float
    sample: int
    symmetric: bool
    model_sha256: str  # of the model, its contract, the nodes to quantize and the versions of the libraries
    data_sha256: str


class CalibrationResult(Record):
    """Ranges, their key, and the diagnosis of the data."""

    key: CalibrationKey
    ranges: dict[str, tuple[float, float]]  # tensor -> low, high
    diagnosis: Diagnosis
    reads: dict[str, str] = Field(default_factory=dict)  # what the user's function read while it made the data

    def notes(self, *, reused: bool) -> list[str]:
        """Return the diagnosis as short notes, and a note where the ranges were reused."""
        again = ["calibration reused: the model, the data and the settings are unchanged"] if reused else []
        return [*again, *(f"calibration data: {note}" for note in self.diagnosis.notes())]


def shifts(calibration: Sequence[Moments], evaluation: Sequence[Moments]) -> tuple[Shift, ...]:
    """Return the inputs whose mean or deviation differ.

    A mean differs when it is off by a quarter of the evaluation data's deviation and by four standard errors; a deviation when it is
    off by a quarter.
    """
    known = {moments.input: moments for moments in evaluation}
    pairs = [(mine, known[mine.input]) for mine in calibration if mine.input in known]
    return tuple(Shift(calibration=mine, evaluation=right) for mine, right in pairs if _differ(mine, right))


def _differ(mine: Moments, right: Moments) -> bool:
    far = abs(mine.mean - right.mean)
    chance = 4 * (mine.mean_error**2 + right.mean_error**2) ** 0.5
    wide = max(right.deviation, 1e-12)
    return (far > 0.25 * wide and far > chance) or not 0.75 <= mine.deviation / wide <= 1 / 0.75


def _numbers(samples: Sequence[int]) -> str:
    shown = ", ".join(map(str, samples[:5]))
    return shown + (", ..." if len(samples) > 5 else "")
