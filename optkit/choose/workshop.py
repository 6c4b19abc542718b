"""Where candidates of one quantization are made: the model is prepared and calibrated once for all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from optkit.artifact import Artifact
from optkit.stages import QuantizeDynamic, QuantizeStatic

AnyQuantize = QuantizeStatic | QuantizeDynamic


@dataclass(frozen=True)
class Workshop:
    """The prepared model, and the ranges of its activations where one candidate is quantized statically."""

    source: Artifact
    prepared: Path
    ranges: Mapping[str, tuple[float, float]]
    folder: Path
    filename: str

    def make(self, stage: AnyQuantize, name: str) -> Artifact:
        """Make one candidate in a folder of its own, beside the others.

        Raises:
            StageError: it cannot be quantized so.
        """
        folder = self.folder / name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(stage, QuantizeStatic):
            return stage.write(self.prepared, self.ranges, self.source, folder / self.filename)
        return stage.write(self.prepared, self.source, folder / self.filename)
