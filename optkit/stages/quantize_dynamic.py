"""ONNX -> INT8 ONNX with quantized weights; activations are quantized at each run (for CPUs)."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import field_validator

from optkit import onnx_file
from optkit.artifact import Artifact, Precision
from optkit.errors import StageError
from optkit.quantization.ort_quantizer import quantizing
from optkit.stages.quantizing import Quantizing
from optkit.system.temporary import libraries_write_to

if TYPE_CHECKING:
    import onnx

_OPS = ("MatMul", "Gemm", "Gather")


class QuantizeDynamic(Quantizing):
    """Quantize the weights of matrix products and embeddings to INT8.

    Convolutions stay in float: ONNX Runtime's dynamic INT8 convolution (ConvInteger) is slower than FP32.
    """

    stage: Literal["quantize-dynamic"] = "quantize-dynamic"
    target: Literal["cpu", "tensorrt"] = "cpu"

    @field_validator("target")
    @classmethod
    def _cpu_only(cls, target: str) -> str:
        if target == "tensorrt":
            raise ValueError(
                "TensorRT has no dynamic INT8: it does not support DynamicQuantizeLinear and MatMulInteger, because it needs "
                "the ranges of activations for the build. Quantize statically, with calibration data"
            )
        return target

    def check_source(self, source: Artifact) -> None:
        """Refuse a model that cannot be quantized, and SmoothQuant, which needs calibration data."""
        super().check_source(source)
        if self.smooth:
            raise StageError(
                "smooth: needs calibration data, and dynamic quantization uses none. Use quantize-static with or_dynamic: true, "
                "or optkit quantize --mode auto --calibration DATA"
            )

    def make(self, source: Artifact, path: Path) -> Artifact:
        """Quantize with ONNX Runtime's quantizer, and refuse a file in which nothing became INT8."""
        self.check_source(source)
        with quantizing(source, path.parent) as prepared:
            return self.write(prepared, source, path)

    def nodes(self, graph: "onnx.GraphProto") -> "list[onnx.NodeProto]":
        """Return the nodes to quantize."""
        return self.select(graph, _OPS)

    def write(self, prepared: Path, source: Artifact, path: Path) -> Artifact:
        """Quantize a model from `quantizing`, inside the block.

        Raises:
            StageError: the model cannot be quantized.
        """
        from onnxruntime.quantization import QuantType, quantize_dynamic

        names = [node.name for node in self.nodes(onnx_file.load(prepared, weights=False).graph)]
        with libraries_write_to(prepared.parent):
            quantize_dynamic(
                prepared,
                path,
                op_types_to_quantize=["MatMul", "Gather"],
                nodes_to_quantize=[
                    *names,
                    *(f"{name}_MatMul" for name in names),
                ],  # the quantizer turns Gemm into MatMul
                per_channel=self.per_channel,
                reduce_range=bool(self.reduce_range),
                weight_type=QuantType.QUInt8 if self.weight_type == "uint8" else QuantType.QInt8,
                use_external_data_format=bool(source.files),
            )
        onnx_file.gather(path, source.size_bytes)
        facts = onnx_file.facts(path)
        onnx_file.check(path)
        floats = self.float_ops(path)
        notes = [f"{facts.nodes.get('MatMulInteger', 0)} matrix products in INT8, activations quantized at each run"]
        notes += [f"stays in float: {floats}"] if floats else []
        return self.artifact(source, path, Precision.INT8, files=facts.files, notes=notes)

    def _why_float(self, name: str, op: str, two: bool) -> str:
        if op == "Conv" and not self._excluded(name, op):
            return "dynamic INT8 of a convolution is slower than FP32; static INT8 is not"
        return super()._why_float(name, op, two)
