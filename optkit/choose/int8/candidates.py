"""The candidates of one quantization: the model is prepared and calibrated once for all of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from optkit.artifact import Artifact
from optkit.artifact.calibration import CalibrationResult
from optkit.stages import QuantizeDynamic, QuantizeStatic

AnyQuantize = QuantizeStatic | QuantizeDynamic


class Base(NamedTuple):
    """The prepared model, and the ranges of its activations for static quantization."""

    model: Path
    calibration: CalibrationResult | None

    @property
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """The ranges; empty where there are none."""
        return self.calibration.ranges if self.calibration else {}


@dataclass(frozen=True)
class CandidateBuilder:
    """Makes candidates from the prepared model, and from the model after SmoothQuant."""

    source: Artifact
    prepared: Path
    folder: Path
    filename: str
    bases: dict[float, Base] = field(default_factory=dict)  # by SmoothQuant's alpha; 0 without SmoothQuant

    def prepare(self, stage: AnyQuantize) -> None:
        """Apply SmoothQuant and calibrate with the settings of the stage, for all candidates with the same settings.

        Raises:
            StageError: the model cannot be calibrated with these settings.
            FeedError: the calibration data does not fit.
        """
        if not isinstance(stage, QuantizeStatic):
            self.bases[0.0] = Base(self.prepared, None)
            return
        model = stage.smoothed(self.prepared, self.source) if stage.smooth else self.prepared
        self.bases[stage.smooth or 0.0] = Base(model, stage.calibrated(model, self.source))

    def base(self, stage: AnyQuantize) -> Base:
        """Return the model and the ranges for a candidate."""
        return self.bases[stage.smooth or 0.0]

    def make(self, stage: AnyQuantize, name: str) -> Artifact:
        """Make one candidate in its own folder.

        Raises:
            StageError: the model cannot be quantized with these settings.
        """
        folder = self.folder / name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        model, ranges = self.base(stage).model, self.base(stage).ranges
        if isinstance(stage, QuantizeStatic):
            return stage.write(model, ranges, self.source, folder / self.filename)
        return stage.write(model, self.source, folder / self.filename)
