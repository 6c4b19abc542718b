"""Run a stage under its own name: as it is, or through the choice that one of its options asks for."""

from pathlib import Path

from optkit.artifact import Artifact
from optkit.choose.exporter import export_onnx
from optkit.stages import ExportOnnx, Stage


def run_stage(stage: Stage, source: Artifact, out_dir: Path, filename: str | None = None) -> Artifact:
    """Make the stage's artifact in `out_dir`, which is the stage's own.

    Raises:
        StageError: it could not be made.
    """
    match stage:
        case ExportOnnx(exporter="auto"):
            return export_onnx(stage, source, out_dir, filename or stage.filename)
        case _:
            return stage.run(source, out_dir, filename)
