"""Run a stage under its own name: as it is, or through the choice that one of its options asks for.

A choice is imported when it is asked for: each needs other checks and measurements.
"""

from pathlib import Path

from optkit.artifact import Artifact
from optkit.checks import Prover
from optkit.stages import BuildTensorRt, ExportOnnx, QuantizeDynamic, QuantizeStatic, Stage


def run_stage(stage: Stage, source: Artifact, out_dir: Path, prover: Prover, filename: str | None = None) -> Artifact:
    """Make the stage's artifact in `out_dir`, which is the stage's own.

    Args:
        stage: what to run.
        source: what it takes.
        out_dir: created.
        prover: proves candidates, where there is a choice between some.
        filename: of the artifact; None takes the stage's own.

    Raises:
        StageError: it could not be made.
    """
    match stage:  # each choice is imported where it is made: an export waits for none of what quantizes
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
