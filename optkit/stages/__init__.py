"""One file for each stage: an artifact and a folder in, one artifact out. Below is their union, the type of a recipe's steps.

base            the contract
export_torchscript, export_program, export_onnx
compile_aoti
optimize_onnx, convert_fp16
quantize_dynamic, quantize_static, quantize_torch
quantizing      what the two quantizing stages of ONNX files share
build_tensorrt
"""

from typing import Annotated

from pydantic import Field

from optkit.stages.base import Stage
from optkit.stages.build_tensorrt import BuildTensorRt
from optkit.stages.compile_aoti import CompileAoti
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
    | BuildTensorRt
    | CompileAoti,
    Field(discriminator="stage"),
]

__all__ = [
    "AnyStage",
    "BuildTensorRt",
    "CompileAoti",
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
