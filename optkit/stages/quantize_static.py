"""ONNX -> INT8 ONNX with Q/DQ nodes, its activations' ranges found on calibration data."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field

from optkit import onnx_file
from optkit.artifact import Artifact, Format, Precision
from optkit.calibration import Method, Range, collect_ranges
from optkit.data import Feeds, absolute_data
from optkit.errors import StageError
from optkit.stages.base import Stage
from optkit.stages.ort_quantizer import quantizing

# Operators whose INT8 form ONNX Runtime computes in integers on CPUs, and those that pass INT8 through.
_OPS = ("Conv", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat",
        "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze")  # fmt: skip

# What TensorRT takes: zero points of 0, Q/DQ on weights, no INT32 biases.
_TENSORRT = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False, "AddQDQPairToWeight": True}

# In a transformer the products with weights alone: the mask of its attention holds -infinity, which has no range.
_PRODUCTS = ("MatMul", "Gemm")


class QuantizeStatic(Stage):
    """Quantize weights (per channel, symmetric) and activations (per tensor).

    The default types are those that are fast on x86 processors: unsigned activations, signed weights.
    """

    accepts: ClassVar[frozenset[Format]] = frozenset({Format.ONNX})
    produces: ClassVar[Format] = Format.ONNX
    filename: ClassVar[str] = "model.onnx"

    stage: Literal["quantize-static"] = "quantize-static"
    target: Literal["cpu", "tensorrt"] = "cpu"  # tensorrt: symmetric INT8 in Q/DQ, on weights too, biases in float
    calibration: str | None = None  # file.py:function or a folder of .npz; a recipe's data.calibration where not given
    method: Method = Method.MINMAX
    percentile: float = Field(default=99.999, gt=50, le=100)
    activation_type: Literal["uint8", "int8"] = "uint8"
    per_channel: bool = True
    reduce_range: bool = False  # 7-bit weights, for processors that add products in 16 bits (x86 without VNNI)

    @property
    def data(self) -> str | None:
        """The calibration data."""
        return self.calibration

    def with_data(self, base: Path, calibration: str | None) -> Self:
        """Return the stage with its own calibration data made absolute, or a recipe's where it has none."""
        own = absolute_data(self.calibration, base) if self.calibration else calibration
        return self.model_copy(update={"calibration": own})

    def make(self, source: Artifact, path: Path) -> Artifact:
        """Collect the ranges, quantize with ONNX Runtime's quantizer, and refuse a file in which nothing became INT8."""
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        if source.precision is not Precision.FP32:
            raise StageError(
                f"{source.path.name} is {source.precision}; expected an FP32 model. Quantize before casting."
            )
        if not self.calibration:
            raise StageError("no calibration data: ranges of activations are never guessed. Give --calibration DATA.")
        feeds = Feeds(self.calibration, source.inputs)
        symmetric = self.target == "tensorrt"
        present = set(onnx_file.facts(source.path).nodes)
        transformer = symmetric and {"Softmax", "MatMul"} <= present and "Conv" not in present
        ops = _PRODUCTS if transformer else _OPS
        with quantizing(source, path.parent) as prepared:
            ranges = collect_ranges(prepared, ops, feeds, self.method, self.percentile)
            quantize_static(
                prepared,
                path,
                calibration_data_reader=None,
                calibration_cache_path=_ranges_file(ranges, prepared.with_name("ranges.json")),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(ops),
                per_channel=self.per_channel,
                reduce_range=self.reduce_range,
                activation_type=QuantType.QInt8 if symmetric or self.activation_type == "int8" else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                use_external_data_format=bool(source.files),
                extra_options=_TENSORRT | {"MatMulConstBOnly": transformer} if symmetric else None,
            )
        onnx_file.gather(path, source.size_bytes)
        facts = onnx_file.facts(path)
        done = facts.nodes.get("DequantizeLinear", 0)
        if not done:
            raise StageError("nothing became INT8: the model has no operator that can be quantized")
        onnx_file.check(path)
        notes = [
            f"{len(ranges)} ranges by {self.method}, {facts.nodes.get('QuantizeLinear', 0)} QuantizeLinear and "
            f"{done} DequantizeLinear nodes, {'int8' if symmetric else self.activation_type} activations, int8 weights"
        ]
        return self.artifact(source, path, Precision.INT8, files=facts.files, notes=notes)


def _ranges_file(ranges: dict[str, Range], path: Path) -> Path:
    """Write the ranges as ONNX Runtime's own calibration cache, which its quantizer reads in place of calibrating."""
    import numpy as np
    from onnxruntime.quantization import CalibrationMethod, TensorData, TensorsData, save_tensors_data

    data = {name: TensorData(lowest=np.float32(r.low), highest=np.float32(r.high)) for name, r in ranges.items()}
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, data), path)
    return path
