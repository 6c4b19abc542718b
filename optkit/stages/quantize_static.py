"""ONNX -> INT8 ONNX, with the ranges of activations from calibration data."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from optkit import onnx_file
from optkit.artifact import Artifact, Precision, read_passport
from optkit.artifact.calibration import CalibrationResult
from optkit.data import Feeds, absolute_data
from optkit.errors import ArtifactError, StageError
from optkit.quantization.calibration.settings import CalibrationMethod, CalibrationSettings
from optkit.quantization.ort_quantizer import hold_in_float, quantize_without_failing, quantizing
from optkit.stages.base import NO_CALIBRATION
from optkit.stages.quantizing import Quantizing, grouped_transposed, has_attention
from optkit.system.temporary import libraries_write_to
from optkit.untrusted.paths import is_file

if TYPE_CHECKING:
    import onnx

_FUSED_OPSET = 21  # https://github.com/microsoft/onnxruntime/issues/27262
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Other operators that ONNX Runtime computes in integers on CPUs, and operators that keep INT8 values.
_BETWEEN = ("Add", "Mul", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Reshape", "Transpose",
            "Flatten", "Squeeze", "Unsqueeze")  # fmt: skip


class QuantizeStatic(Quantizing):
    """Quantize weights (symmetric) and activations (per tensor).

    `target: tensorrt` writes the form that TensorRT supports: Q/DQ nodes, also on weights, symmetric INT8, biases in float. For CPUs,
    `choose` measures the `auto` types; without measurements they are unsigned activations in Q/DQ, which are fast on x86 processors.
    """

    stage: Literal["quantize-static"] = "quantize-static"
    target: Literal["cpu", "tensorrt"] = "cpu"
    calibration: str | None = None  # file.py:function, .npz or images.yaml; a recipe's data.calibration where not given
    method: CalibrationMethod = CalibrationMethod.MINMAX
    percentile: float = Field(default=99.999, gt=50, le=100)
    sample: int = Field(default=1, ge=1)  # histograms count one of this many elements
    doctor: bool = False  # report long tails too, with every method
    activation_type: Literal["auto", "uint8", "int8"] = "auto"
    format: Literal["auto", "qdq", "qoperator"] = "auto"
    or_dynamic: bool = False  # use a dynamically quantized model instead where it is faster and within tolerance

    _earlier: CalibrationResult | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _fits_target(self) -> Self:
        if self.target == "tensorrt":
            other = {
                "activation_type": self.activation_type == "uint8",
                "weight_type": self.weight_type == "uint8",
                "format": self.format == "qoperator",
                "reduce_range": bool(self.reduce_range),
                "or_dynamic": self.or_dynamic,
            }
            for key, refused in other.items():
                if refused:
                    raise ValueError(
                        f"{key} is {getattr(self, key)}; target tensorrt supports only symmetric int8 in Q/DQ format. Leave {key} out"
                    )
        return self

    @property
    def data(self) -> str | None:
        """The calibration data."""
        return self.calibration

    def faults(self, calibration: str | None, evaluation: str | None) -> Iterator[str]:
        """Yield what the step needs and a recipe does not give, calibration data above all."""
        if not self.data:
            yield NO_CALIBRATION
        yield from super().faults(calibration, evaluation)

    def with_data(self, base: Path, calibration: str | None) -> Self:
        """Return the stage with absolute paths of its own calibration data, or with the recipe's calibration data."""
        own = absolute_data(self.calibration, base) if self.calibration else calibration
        return self.model_copy(update={"calibration": own})

    def resolved(self) -> Self:
        """Return the stage with the types that `auto` means without measurements."""
        symmetric = self.target == "tensorrt"
        auto = {"activation_type": "int8" if symmetric else "uint8", "format": "qdq"}
        return self.model_copy(update={key: value for key, value in auto.items() if getattr(self, key) == "auto"})

    def make(self, source: Artifact, path: Path) -> Artifact:
        """Collect the ranges, and quantize with ONNX Runtime's quantizer."""
        self.check_source(source)
        with quantizing(source, path.parent) as prepared:
            if self.smooth:
                prepared = self.smoothed(prepared, source)
            calibration = self.calibrated(prepared, source)
            return self.described(self.write(prepared, calibration.ranges, source, path), calibration)

    def with_earlier(self, made: Path) -> Self:
        """Return the stage with the ranges of an earlier artifact; they are reused where nothing has changed."""
        try:
            passport = read_passport(made) if is_file(made) else None
        except ArtifactError:  # a changed or foreign file
            return self
        copy = self.model_copy()
        copy._earlier = passport.artifact.calibration if passport else None
        return copy

    def smoothed(self, prepared: Path, source: Artifact) -> Path:
        """Write a copy with SmoothQuant applied, with alpha `smooth`, and return its path.

        Args:
            prepared: the model from `quantizing`.
            source: the model that it was prepared from.

        Raises:
            StageError: there is no calibration data, no matrix product to smooth, or the copy is not equal.
            FeedError: the data does not fit the inputs.
        """
        from optkit.quantization.smoothquant import smooth

        names = {node.name for node in self.nodes(onnx_file.load(prepared, weights=False).graph)}
        return smooth(prepared, names, self._feeds(source), self.smooth or 0.0)

    def calibrated(self, prepared: Path, source: Artifact) -> CalibrationResult:
        """Return the range of every activation to quantize; it depends on the target, but not on the types.

        Args:
            prepared: the model from `quantizing`.
            source: the model that it was prepared from.

        Raises:
            StageError: there is no calibration data, or the model cannot be run on it.
            FeedError: the data does not fit the inputs, or an activation is not finite.
        """
        from optkit.quantization.calibration.reuse import calibrated

        feeds = self._feeds(source)
        graph = onnx_file.load(prepared, weights=False).graph
        selected = {node.name: node.op_type for node in self.nodes(graph)}
        return calibrated(
            prepared,
            source,
            sorted(set(selected.values())),
            feeds,
            CalibrationSettings(
                method=self.method,
                percentile=self.percentile,
                sample=self.sample,
                symmetric=self.target == "tensorrt",
            ),
            excluded={node.name for node in graph.node} - set(selected),
            smooth=self.smooth or 0.0,
            earlier=self._earlier,
            doctor=self.doctor,
        )

    def _feeds(self, source: Artifact) -> Feeds:
        feeds = self.feeds(source)
        if feeds is None:
            raise StageError("no calibration data: ranges of activations are never guessed. Give --calibration DATA.")
        return feeds

    def described(self, made: Artifact, calibration: CalibrationResult) -> Artifact:
        """Return the artifact with its calibration, and with notes on the data."""
        notes = calibration.notes(reused=calibration is self._earlier)
        return made.model_copy(update={"calibration": calibration, "notes": (*made.notes, *notes)})

    def nodes(self, graph: "onnx.GraphProto") -> "list[onnx.NodeProto]":
        """Return the nodes to quantize: in a transformer only products with weights, in other models also the operators between them.

        Products of two activations stay in float: the attention mask contains -inf, so there is no quantization range.
        """
        from optkit.quantization.smoothquant import SMOOTH

        selected = self.select(graph, _PRODUCTS if has_attention(graph) else (*_PRODUCTS, *_BETWEEN))
        return [node for node in selected if not node.name.endswith(SMOOTH)]  # SmoothQuant's divisions stay in float

    def write(
        self, prepared: Path, ranges: Mapping[str, tuple[float, float]], source: Artifact, path: Path
    ) -> Artifact:
        """Quantize with these ranges, and refuse a file in which nothing became INT8.

        Args:
            prepared: the model from `quantizing`, inside the block.
            ranges: tensor -> low and high from `calibrated`; they may come from other types, or include more nodes.
            source: the model that it was prepared from.
            path: the file to write.

        Raises:
            StageError: the model cannot be quantized.
        """
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        stage = self.resolved()
        graph = onnx_file.load(prepared, weights=False).graph
        nodes = self.nodes(graph)

        whole = grouped_transposed(nodes) if self.per_channel and self.target == "cpu" and stage.format == "qdq" else []
        weight = QuantType.QUInt8 if self.weight_type == "uint8" else QuantType.QInt8
        per_tensor = {"quant_type": weight, "reduce_range": bool(self.reduce_range)}
        overrides = {"TensorQuantOverrides": {node.input[1]: [per_tensor] for node in whole}} if whole else {}

        def quantize(nodes: "Sequence[onnx.NodeProto]") -> None:
            with libraries_write_to(prepared.parent):
                quantize_static(
                    prepared,
                    path,
                    calibration_data_reader=None,
                    calibration_cache_path=_ranges_file(ranges, prepared.with_name("ranges.json")),
                    quant_format=QuantFormat.QDQ if stage.format == "qdq" else QuantFormat.QOperator,
                    op_types_to_quantize=sorted({node.op_type for node in nodes}),
                    nodes_to_quantize=[node.name for node in nodes],
                    per_channel=self.per_channel,
                    reduce_range=bool(self.reduce_range),
                    activation_type=QuantType.QUInt8 if stage.activation_type == "uint8" else QuantType.QInt8,
                    weight_type=weight,
                    use_external_data_format=bool(source.files),
                    extra_options=self._extra_options(_float_outputs(graph)) | overrides,
                )

        failing = quantize_without_failing(quantize, nodes)
        nodes = [node for node in nodes if node.name not in failing]
        if self.target == "cpu":
            hold_in_float(path)
        onnx_file.gather(path, source.size_bytes)
        facts = onnx_file.facts(path)
        if facts.precision is not Precision.INT8:
            raise StageError("nothing became INT8: the model has no operator that can be quantized")
        onnx_file.check(path)
        notes = [
            f"{len(ranges)} ranges by {self.method}, {len(nodes)} nodes in INT8 ({stage.format}), "
            f"{stage.activation_type} activations, {self.weight_type} weights"
        ]
        notes += [f"smoothed by SmoothQuant, alpha {self.smooth:g}"] if self.smooth else []
        floats = self.float_ops(path)
        notes += [f"stays in float: {floats}"] if floats else []
        notes += [
            f"stays in float, because ONNX Runtime's quantizer fails on it: {n}: {why}" for n, why in failing.items()
        ]
        if whole:
            names = ", ".join(node.name for node in whole)
            notes.append(f"one scale for the whole weight of {names}: transposed convolution with groups and a bias")
        if self.target == "cpu" and facts.opset > _FUSED_OPSET:
            notes.append(
                f"opset {facts.opset}: some releases of ONNX Runtime compute INT8 layers above opset {_FUSED_OPSET} in float; "
                f"export with --opset {_FUSED_OPSET} where another release than this one serves"
            )
        return self.artifact(source, path, Precision.INT8, files=facts.files, notes=notes)

    def _extra_options(self, float_outputs: Sequence[str]) -> dict[str, Any]:
        """Return the extra options of ONNX Runtime's quantizer."""
        options: dict[str, Any] = {"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": list(float_outputs)}
        if self.target == "tensorrt":
            options |= {
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "AddQDQPairToWeight": True,
            }
        return options


def _float_outputs(graph: "onnx.GraphProto") -> Sequence[str]:
    """Return the operators whose outputs stay in float: in a transformer a bias, GELU or LayerNorm in float follows."""
    return ("MatMul", "Gemm") if has_attention(graph) else ()


def _ranges_file(ranges: Mapping[str, tuple[float, float]], path: Path) -> Path:
    """Write the ranges as ONNX Runtime's calibration cache, so that its quantizer does not calibrate."""
    import numpy as np
    from onnxruntime.quantization import CalibrationMethod, TensorData, TensorsData, save_tensors_data

    data = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()}
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, data), path)
    return path
