"""Which exporter writes the ONNX file: dynamo, or the TorchScript exporter when dynamo's file is refused."""

import shutil
from pathlib import Path
from typing import Literal

from optkit.artifact import Artifact
from optkit.errors import StageError
from optkit.stages import ExportOnnx

_ORDER: tuple[Literal["dynamo", "torchscript"], ...] = ("dynamo", "torchscript")


def export_onnx(stage: ExportOnnx, source: Artifact, out_dir: Path, filename: str) -> Artifact:
    """Run the exporters in turn and keep the first file that the stage's checks let through; notes say why others lost.

    Raises:
        StageError: all were refused; holds every reason.
    """
    refusals: list[str] = []
    for exporter in _ORDER:
        attempt = stage.model_copy(update={"exporter": exporter})
        try:
            artifact = attempt.run(source, out_dir, filename)
        except StageError as e:
            refusals.append(str(e).removeprefix(f"{stage.step}: "))
            shutil.rmtree(out_dir, ignore_errors=True)
            continue
        return artifact.model_copy(update={"notes": (*artifact.notes, *(f"not chosen: {text}" for text in refusals))})
    raise StageError(f"{stage.step}: no exporter could export the model.\n" + "\n".join(f"  - {r}" for r in refusals))
