"""ONNX -> INT8 ONNX with Q/DQ nodes, its activations' ranges found on calibration data."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, PrivateAttr

from optkit import onnx_file
from optkit.artifact import Artifact, Format, Precision, read_passport
from optkit.calibration import CalibrationSettings, Method, calibrated
from optkit.data import Feeds, absolute_data
from optkit.diagnosis import CalibrationResult
from optkit.errors import ArtifactError, StageError
from optkit.stages.base import Stage
from optkit.stages.ort_quantizer import quantizing

# Operators whose INT8 form ONNX Runtime computes in integers on CPUs, and those that pass INT8 through.
_OPS = ("Conv", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat",
        "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze")  # fmt: skip


class QuantizeStatic(Stage):
    """Quantize weights (per channel, symmetric) and activations (per tensor).

    The default types are those that are fast on x86 processors: unsigned activations, signed weights.
    """

    accepts: ClassVar[frozenset[Format]] = frozenset({Format.ONNX})
    produces: ClassVar[Format] = Format.ONNX
    filename: ClassVar[str] = "model.onnx"

    stage: Literal["quantize-static"] = "quantize-static"
    calibration: str | None = None  # file.py:function, .npz or images.yaml; a recipe's data.calibration where not given
    method: Method = Method.MINMAX
    percentile: float = Field(default=99.999, gt=50, le=100)
    sample: int = Field(default=1, ge=1)  # histograms count one element in so many
    doctor: bool = False  # look at long tails too, whatever the method
    activation_type: Literal["uint8", "int8"] = "uint8"
    per_channel: bool = True
    reduce_range: bool = False  # 7-bit weights, for processors that add products in 16 bits (x86 without VNNI)

    _earlier: CalibrationResult | None = PrivateAttr(default=None)

    @property
    def data(self) -> str | None:
        """The calibration data."""
        return self.calibration

    def with_data(self, base: Path, calibration: str | None) -> Self:
        """Return the stage with its own calibration data made absolute, or a recipe's where it has none."""
        own = absolute_data(self.calibration, base) if self.calibration else calibration
        return self.model_copy(update={"calibration": own})

    def with_earlier(self, made: Path) -> Self:
        """Return the stage with the ranges that an artifact made before keeps; they serve where nothing has changed."""
        try:
            passport = read_passport(made) if made.is_file() else None
        except ArtifactError:  # changed or foreign: nothing is known of it
            return self
        copy = self.model_copy()
        copy._earlier = passport.artifact.calibration if passport else None
        return copy

    def calibrated(self, prepared: Path, source: Artifact) -> CalibrationResult:
        """Return the range of every activation that is to be quantized.

        Args:
            prepared: the model as `quantizing` gives it.
            source: the model that it was prepared from.

        Raises:
            StageError: there is no calibration data, or the model cannot be run on it.
            FeedError: the data does not fit, or an activation is not finite.
        """
        if not self.calibration:
            raise StageError("no calibration data: ranges of activations are never guessed. Give --calibration DATA.")
        return calibrated(
            prepared,
            source,
            _OPS,
            Feeds(self.calibration, source.inputs),
            CalibrationSettings(method=self.method, percentile=self.percentile, sample=self.sample),
            earlier=self._earlier,
            doctor=self.doctor,
        )

    def make(self, source: Artifact, path: Path) -> Artifact:
        """Collect the ranges, quantize with ONNX Runtime's quantizer, and refuse a file in which nothing became INT8."""
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        if source.precision is not Precision.FP32:
            raise StageError(
                f"{source.path.name} is {source.precision}; expected an FP32 model. Quantize before casting."
            )
        with quantizing(source, path.parent) as prepared:
            calibration = self.calibrated(prepared, source)
            quantize_static(
                prepared,
                path,
                calibration_data_reader=None,
                calibration_cache_path=_ranges_file(calibration, prepared.with_name("ranges.json")),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_OPS),
                per_channel=self.per_channel,
                reduce_range=self.reduce_range,
                activation_type=QuantType.QUInt8 if self.activation_type == "uint8" else QuantType.QInt8,
                weight_type=QuantType.QInt8,
                use_external_data_format=bool(source.files),
            )
        onnx_file.gather(path, source.size_bytes)
        facts = onnx_file.facts(path)
        done = facts.nodes.get("DequantizeLinear", 0)
        if not done:
            raise StageError("nothing became INT8: the model has no operator that can be quantized")
        onnx_file.check(path)
        notes = [
            f"{len(calibration.ranges)} ranges by {self.method}, {facts.nodes.get('QuantizeLinear', 0)} QuantizeLinear and "
            f"{done} DequantizeLinear nodes, {self.activation_type} activations, int8 weights"
        ]
        notes += calibration.notes(reused=calibration is self._earlier)
        made = self.artifact(source, path, Precision.INT8, files=facts.files, notes=notes)
        return made.model_copy(update={"calibration": calibration})


def _ranges_file(calibration: CalibrationResult, path: Path) -> Path:
    """Write the ranges as ONNX Runtime's own calibration cache, which its quantizer reads in place of calibrating."""
    import numpy as np
    from onnxruntime.quantization import CalibrationMethod, TensorData, TensorsData, save_tensors_data

    data = {
        name: TensorData(lowest=np.float32(r[0]), highest=np.float32(r[1])) for name, r in calibration.ranges.items()
    }
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, data), path)
    return path
