"""ONNX -> INT8 ONNX whose weights are quantized now and whose activations are quantized at each run (for CPUs)."""

from pathlib import Path
from typing import ClassVar, Literal

from optkit import onnx_file
from optkit.artifact import Artifact, Format, Precision
from optkit.errors import StageError
from optkit.stages.base import Stage
from optkit.stages.ort_quantizer import quantizing


class QuantizeDynamic(Stage):
    """Quantize the weights of matrix products to INT8.

    Convolutions stay in float: ONNX Runtime's dynamic form of them (ConvInteger) is slower than FP32.
    """

    accepts: ClassVar[frozenset[Format]] = frozenset({Format.ONNX})
    produces: ClassVar[Format] = Format.ONNX
    filename: ClassVar[str] = "model.onnx"

    stage: Literal["quantize-dynamic"] = "quantize-dynamic"
    per_channel: bool = True
    reduce_range: bool = False  # 7-bit weights, for processors that add products in 16 bits (x86 without VNNI)

    def make(self, source: Artifact, path: Path) -> Artifact:
        """Quantize with ONNX Runtime's quantizer, and refuse a file in which nothing became INT8."""
        from onnxruntime.quantization import QuantType, quantize_dynamic

        if source.precision is not Precision.FP32:
            raise StageError(
                f"{source.path.name} is {source.precision}; expected an FP32 model. Quantize before casting."
            )
        with quantizing(source, path.parent) as prepared:
            quantize_dynamic(
                prepared,
                path,
                op_types_to_quantize=["MatMul", "Gather"],
                per_channel=self.per_channel,
                reduce_range=self.reduce_range,
                weight_type=QuantType.QInt8,
                use_external_data_format=bool(source.files),
            )
        onnx_file.gather(path, source.size_bytes)
        facts = onnx_file.facts(path)
        done = facts.nodes.get("MatMulInteger", 0)
        if not done:
            raise StageError("nothing became INT8: the model has no matrix product with constant weights")
        onnx_file.check(path)
        floats = {op: n for op, n in facts.nodes.items() if op in ("Conv", "MatMul", "Gemm", "LSTM", "GRU", "RNN")}
        notes = [f"{done} matrix products in INT8"]
        notes += [f"stays in float: {', '.join(f'{n} {op}' for op, n in floats.items())}"] if floats else []
        return self.artifact(source, path, Precision.INT8, files=facts.files, notes=notes)
