"""FP32 ONNX -> FP16 ONNX: weights and computation cast in the graph, inputs and outputs kept as they are."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from optkit import onnx_file
from optkit.artifact import Artifact, Format, Precision
from optkit.errors import StageError, first_line
from optkit.stages.base import Stage

if TYPE_CHECKING:
    import onnx


class ConvertFp16(Stage):
    """Cast an ONNX model to FP16. `keep_ops` names operators that stay in FP32."""

    accepts: ClassVar[frozenset[Format]] = frozenset({Format.ONNX})
    produces: ClassVar[Format] = Format.ONNX
    filename: ClassVar[str] = "model.onnx"

    stage: Literal["convert-fp16"] = "convert-fp16"
    keep_ops: tuple[str, ...] = ()

    def make(self, source: Artifact, path: Path) -> Artifact:
        """Convert with ONNX Runtime's converter, and refuse a file in which no weight became FP16."""
        import onnx_ir

        if source.precision is Precision.FP16:
            raise StageError(f"{source.path.name} is in FP16 already")
        model = onnx_file.load(source.path)
        unknown = set(self.keep_ops) - {node.op_type for node in onnx_file.nodes(model.graph)}
        if unknown:
            raise StageError(f"keep_ops: the model has no {', '.join(sorted(unknown))} node")
        half = self._converted(model)
        notes = _cut(model, half)
        # The converter leaves its Cast nodes out of order, which onnx.checker refuses.
        ordered = onnx_ir.serde.deserialize_model(half)
        ordered.graph.sort()
        half = onnx_ir.serde.serialize_model(ordered)
        share = _half_share(half)
        if share == 0:
            raise StageError("no weight became FP16: the model has no FP32 weight that can be cast")
        onnx_file.save(half, path)
        onnx_file.check(path)
        precision = Precision.INT8 if source.precision is Precision.INT8 else Precision.FP16
        notes = [f"{100 * share:.0f} % of the bytes of the weights are FP16", *notes]
        return self.artifact(source, path, precision, files=onnx_file.facts(path).files, notes=notes)

    def _converted(self, model: "onnx.ModelProto") -> "onnx.ModelProto":
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

        try:
            blocked = [*DEFAULT_OP_BLOCK_LIST, *self.keep_ops]
            half: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked)
        except Exception as e:  # the converter raises plain exceptions of many types
            raise StageError(f"the model cannot be cast to FP16: {first_line(e)}") from e
        return half


def _cut(model: "onnx.ModelProto", half: "onnx.ModelProto") -> list[str]:
    """Return a note on weights with finite values beyond the range of FP16, which the converter cuts and tells nobody."""
    import numpy as np
    import onnx

    largest = float(np.finfo(np.float16).max)
    halved = {tensor.name for tensor in half.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16}
    cut = []
    for tensor in model.graph.initializer:
        if tensor.name in halved:
            values = np.abs(onnx.numpy_helper.to_array(tensor))
            if np.any(np.isfinite(values) & (values > largest)):
                cut.append(tensor.name)
    return [f"{len(cut)} weights hold values beyond FP16, cut to {largest:g}: {', '.join(cut[:4])}"] if cut else []


def _half_share(model: "onnx.ModelProto") -> float:
    """Return the share of FP16 in the bytes of all weights (0 to 1)."""
    import onnx

    total = half = 0
    for tensor in model.graph.initializer:
        size = len(tensor.raw_data) or len(tensor.SerializeToString())
        total += size
        half += size if tensor.data_type == onnx.TensorProto.FLOAT16 else 0
    return half / total if total else 0.0
