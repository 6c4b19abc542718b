"""Where candidates of one quantization are made: the model is prepared and calibrated once for all of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from optkit.artifact import Artifact
from optkit.artifact.calibration import CalibrationResult
from optkit.stages import QuantizeDynamic, QuantizeStatic

AnyQuantize = QuantizeStatic | QuantizeDynamic


class Base(NamedTuple):
    """What is quantized: the prepared model, and the ranges of its activations where one candidate is quantized statically."""

    model: Path
    calibration: CalibrationResult | None

    @property
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """The ranges; empty where there are none."""
        return self.calibration.ranges if self.calibration else {}


@dataclass(frozen=True)
class Workshop:
    """The prepared model, as it is and smoothed."""

    source: Artifact
    prepared: Path
    folder: Path
    filename: str
    bases: dict[float, Base] = field(default_factory=dict)  # by how strongly they are smoothed

    def prepare(self, stage: AnyQuantize) -> None:
        """Smooth and calibrate as the stage asks, for all that are like it in that.

        Raises:
            StageError: it cannot be done so.
            FeedError: the calibration data does not fit.
        """
        if not isinstance(stage, QuantizeStatic):
            self.bases[0.0] = Base(self.prepared, None)
            return
        model = stage.smoothed(self.prepared, self.source) if stage.smooth else self.prepared
        self.bases[stage.smooth or 0.0] = Base(model, stage.calibrated(model, self.source))

    def base(self, stage: AnyQuantize) -> Base:
        """Return what a candidate is made of."""
        return self.bases[stage.smooth or 0.0]

    def make(self, stage: AnyQuantize, name: str) -> Artifact:
        """Make one candidate in a folder of its own, beside the others.

        Raises:
            StageError: it cannot be quantized so.
        """
        folder = self.folder / name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        model, ranges = self.base(stage).model, self.base(stage).ranges
        if isinstance(stage, QuantizeStatic):
            return stage.write(model, ranges, self.source, folder / self.filename)
        return stage.write(model, self.source, folder / self.filename)
