"""Run a stage directly, or through the choice that one of its options needs.

Each choice is imported only when it is used, because each needs other checks and measurements.
"""

from pathlib import Path

from optkit.artifact import Artifact
from optkit.checks import Prover
from optkit.stages import BuildTensorRt, ExportOnnx, QuantizeDynamic, QuantizeStatic, Stage


def run_stage(stage: Stage, source: Artifact, out_dir: Path, prover: Prover, filename: str | None = None) -> Artifact:
    """Make the stage's artifact in `out_dir`, the stage's own folder.

    Args:
        stage: the stage to run.
        source: its input artifact.
        out_dir: created.
        prover: checks the candidates of a choice.
        filename: the name of the artifact; None uses the stage's own.

    Raises:
        StageError: the artifact could not be made.
    """
    match stage:  # imports stand in each case, so that an export does not import the quantizers
        case ExportOnnx(exporter="auto" | "best"):
            from optkit.choose.exporter import export_onnx

            return export_onnx(stage, source, out_dir, prover, filename or stage.filename)
        case QuantizeStatic() | QuantizeDynamic():
            from optkit.choose.int8.types import quantize

            return quantize(stage, source, out_dir, prover, filename or stage.filename)
        case BuildTensorRt():
            from optkit.choose.engine import build_engine

            return build_engine(stage, source, out_dir, prover, filename or stage.filename)
        case _:
            return stage.run(source, out_dir, filename)
