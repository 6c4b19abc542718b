"""FP32 ONNX -> FP16 ONNX: weights and computation are cast; inputs and outputs keep their types."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from optkit import onnx_file
from optkit.artifact import Artifact, Format, Precision
from optkit.errors import OptkitError, StageError, first_line
from optkit.stages.base import Stage
from optkit.system.space import check_space

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnx_ir

_PART = 1 << 20  # elements


class ConvertFp16(Stage):
    """Cast an ONNX model to FP16. `keep_ops` names operators that stay in FP32."""

    accepts: ClassVar[frozenset[Format]] = frozenset({Format.ONNX})
    produces: ClassVar[Format] = Format.ONNX
    filename: ClassVar[str] = "model.onnx"

    stage: Literal["convert-fp16"] = "convert-fp16"
    keep_ops: tuple[str, ...] = ()

    def make(self, source: Artifact, path: Path) -> Artifact:
        """Convert with ONNX Runtime's converter, and refuse a file in which no weight became FP16."""
        if source.precision is Precision.FP16:
            raise StageError(f"{source.path.name} is in FP16 already")
        check_space(path.parent, source.size_bytes // 2, "the model in FP16")
        graph = onnx_file.load_graph(source.path)
        unknown = set(self.keep_ops) - {node.op_type for node in onnx_file.nodes(graph.graph)}
        if unknown:
            raise StageError(f"keep_ops: the model has no {', '.join(sorted(unknown))} node")
        weights = onnx_file.load_lazily(source.path)
        try:
            notes = self._write(graph, weights, path, source.size_bytes)
        except (OptkitError, OSError):
            raise
        except Exception as e:  # the converter and onnx_ir raise plain exceptions of many types
            raise StageError(f"the model cannot be cast to FP16: {first_line(e)}") from e
        onnx_file.check(path)
        precision = Precision.INT8 if source.precision is Precision.INT8 else Precision.FP16
        onnx_file.release(weights)
        return self.artifact(source, path, precision, files=onnx_file.facts(path).files, notes=notes)

    def _write(self, graph: "onnx.ModelProto", weights: "onnx_ir.Model", path: Path, source_bytes: int) -> list[str]:
        """Write the graph with its weights in FP16, and return notes on them."""
        import onnx_ir

        half = onnx_ir.serde.deserialize_model(self._converted(graph))
        _cast_weights(half, weights)
        # The converter does not keep its Cast nodes in topological order, and onnx.checker rejects this.
        half.graph.sort()
        share = _half_share(half)
        if share == 0:
            raise StageError("no weight became FP16: the model has no FP32 weight that can be cast")
        onnx_file.save(half, path, source_bytes)
        return [f"{100 * share:.0f} % of the bytes of the weights are FP16", *_cut(half, weights)]

    def _converted(self, model: "onnx.ModelProto") -> "onnx.ModelProto":
        """Return the graph in FP16; the weights, whose values were not read, have no dimensions now."""
        import onnx
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

        model = onnx.shape_inference.infer_shapes(model)
        for tensor in model.graph.initializer:
            if onnx_file.is_weight(tensor):  # the converter would read the values
                tensor.dims[:] = [0]
        half: onnx.ModelProto = convert_float_to_float16(
            model,
            keep_io_types=True,
            disable_shape_infer=True,
            op_block_list=[*DEFAULT_OP_BLOCK_LIST, *self.keep_ops],
        )
        # It adds one Cast to FP32 for each FP32 node that reads a tensor, always with the same name.
        once = {node.output[0]: node for node in reversed(half.graph.node) if node.output}
        kept = [node for node in half.graph.node if not node.output or once[node.output[0]] is node]
        del half.graph.node[:]
        half.graph.node.extend(kept)
        return half


def _cast_weights(half: "onnx_ir.Model", source: "onnx_ir.Model") -> None:
    """Give the weights of `half` the values of `source`; a weight in FP16 is cast when it is written, and then freed."""
    import onnx_ir

    for name, value in half.graph.initializers.items():
        tensor = _tensor(source, name)
        # The converter changes the declared type of every weight, also of weights that stay in FP32.
        value.dtype = _tensor(half, name).dtype
        for seen in (value, *(node.outputs[0] for node in value.consumers() if node.op_type == "Cast")):
            seen.shape = onnx_ir.Shape(tensor.shape.numpy())
        if value.dtype is onnx_ir.DataType.FLOAT16 and tensor.dtype is onnx_ir.DataType.FLOAT:
            cast = functools.partial(_cast, tensor)
            tensor = onnx_ir.LazyTensor(cast, value.dtype, onnx_ir.Shape(tensor.shape.numpy()), name=name)
        value.const_value = tensor


def _cast(tensor: "onnx_ir.TensorProtocol") -> "onnx_ir.TensorProtocol":
    """Return a tensor in FP16, cast as in ONNX Runtime's converter: values beyond FP16 are clipped, tiny values stay above zero."""
    import numpy as np
    import onnx_ir
    from onnxruntime.transformers.float16 import convert_np_to_float16

    parts = [convert_np_to_float16(part) for part in _parts(tensor)]
    half = np.concatenate(parts) if parts else np.empty(0, np.float16)
    return onnx_ir.Tensor(half.reshape(tensor.shape.numpy()), name=tensor.name)


def _cut(half: "onnx_ir.Model", source: "onnx_ir.Model") -> list[str]:
    """Return a note on weights with finite values beyond the range of FP16, which the converter silently clips."""
    import numpy as np
    import onnx_ir

    largest = float(np.finfo(np.float16).max)
    cut = [
        name
        for name, value in half.graph.initializers.items()
        if value.dtype is onnx_ir.DataType.FLOAT16
        and any(np.any(np.isfinite(part) & (np.abs(part) > largest)) for part in _parts(_tensor(source, name)))
    ]
    return [f"{len(cut)} weights have values beyond FP16, clipped to {largest:g}: {', '.join(cut[:4])}"] if cut else []


def _tensor(model: "onnx_ir.Model", name: str) -> "onnx_ir.TensorProtocol":
    tensor = model.graph.initializers[name].const_value
    if tensor is None:
        raise AssertionError(f"initializer {name} without a tensor")
    return tensor


def _parts(tensor: "onnx_ir.TensorProtocol") -> "Iterator[np.ndarray]":
    """Yield the values of a tensor in parts, because arithmetic on them makes several copies."""
    values = tensor.numpy().reshape(-1)
    for start in range(0, values.size, _PART):
        yield values[start : start + _PART]


def _half_share(model: "onnx_ir.Model") -> float:
    """Return the share of FP16 in the bytes of all weights (0 to 1)."""
    import onnx_ir

    tensors = [_tensor(model, name) for name in model.graph.initializers]
    total = sum(t.nbytes for t in tensors)
    return sum(t.nbytes for t in tensors if t.dtype is onnx_ir.DataType.FLOAT16) / total if total else 0.0
