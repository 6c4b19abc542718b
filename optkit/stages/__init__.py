"""The stages, and their union, the type of a recipe's steps."""

from typing import Annotated

from pydantic import Field

from optkit.stages.base import Stage
from optkit.stages.build_tensorrt import BuildTensorRt
from optkit.stages.convert_fp16 import ConvertFp16
from optkit.stages.export_onnx import ExportOnnx
from optkit.stages.export_program import ExportProgram
from optkit.stages.export_torchscript import ExportTorchScript
from optkit.stages.optimize_onnx import OptimizeOnnx
from optkit.stages.quantize_dynamic import QuantizeDynamic
from optkit.stages.quantize_static import QuantizeStatic
from optkit.stages.quantize_torch import QuantizeTorch

AnyStage = Annotated[
    ExportTorchScript
    | ExportProgram
    | ExportOnnx
    | OptimizeOnnx
    | ConvertFp16
    | QuantizeDynamic
    | QuantizeStatic
    | QuantizeTorch
    | BuildTensorRt,
    Field(discriminator="stage"),
]

__all__ = [
    "AnyStage",
    "BuildTensorRt",
    "ConvertFp16",
    "ExportOnnx",
    "ExportProgram",
    "ExportTorchScript",
    "OptimizeOnnx",
    "QuantizeDynamic",
    "QuantizeStatic",
    "QuantizeTorch",
    "Stage",
]
