"""FP32 ONNX -> FP16 ONNX: weights and computation are cast; inputs and outputs keep their types."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from optkit import onnx_file
from optkit.artifact import Artifact, Format, Precision
from optkit.data import Samples
from optkit.errors import OptkitError, StageError, first_line
from optkit.stages.base import Stage
from optkit.system.space import check_space

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnx_ir

_PART = 1 << 20  # elements
_LARGEST = 65504.0  # of FP16


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
        overflowing = self._overflowing(source, graph)
        try:
            notes = self._write(graph, weights, path, source.size_bytes, overflowing)
        except (OptkitError, OSError):
            raise
        except Exception as e:  # the converter and onnx_ir raise plain exceptions of many types
            raise StageError(f"the model cannot be cast to FP16: {first_line(e)}") from e
        onnx_file.check(path)
        precision = Precision.INT8 if source.precision is Precision.INT8 else Precision.FP16
        onnx_file.release(weights)
        return self.artifact(source, path, precision, files=onnx_file.facts(path).files, notes=notes)

    def _overflowing(self, source: Artifact, graph: "onnx.ModelProto") -> list[str]:
        """Return the nodes whose inputs or outputs are beyond FP16 on real samples; names are given to nodes without one.

        The large negative numbers of a mask are no overflow: they may be clipped.
        """
        from optkit.onnx_file.node_values import node_values

        if self._known is None or self._known.inputs != source.inputs:
            return []
        samples = Samples(source.inputs, source.dims, self._known)
        values = node_values(source.path, samples.at({name: r.opt for name, r in source.dims.items()})) or {}
        made_by = {name: node.op_type for node in graph.graph.node for name in node.output}
        large = {name for name, array in values.items() if _overflows(array, made_by.get(name, ""))}
        for i, node in enumerate(graph.graph.node):
            node.name = node.name or f"{node.op_type}_{i}"
        return [node.name for node in graph.graph.node if large.intersection((*node.input, *node.output))]

    def _write(
        self,
        graph: "onnx.ModelProto",
        weights: "onnx_ir.Model",
        path: Path,
        source_bytes: int,
        overflowing: Sequence[str],
    ) -> list[str]:
        """Write the graph with its weights in FP16, and return notes on them."""
        import onnx_ir

        converted = self._converted(graph, overflowing)
        cut = _cut_constants(graph, converted)
        half = onnx_ir.serde.deserialize_model(converted)
        _cast_weights(half, weights)
        # The converter does not keep its Cast nodes in topological order, and onnx.checker rejects this.
        half.graph.sort()
        share = _half_share(half)
        if share == 0:
            raise StageError("no weight became FP16: the model has no FP32 weight that can be cast")
        onnx_file.save(half, path, source_bytes)
        notes = [f"{100 * share:.0f} % of the bytes of the weights are FP16", *_cut(half, weights, cut)]
        if overflowing:
            notes.append(f"stays in FP32, because it is beyond FP16 on the samples: {', '.join(overflowing)}")
        return notes

    def _converted(self, model: "onnx.ModelProto", overflowing: Sequence[str]) -> "onnx.ModelProto":
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
            node_block_list=list(overflowing),
        )
        # It adds one Cast to FP32 for each FP32 node that reads a tensor, always with the same name.
        once = {node.output[0]: node for node in reversed(half.graph.node) if node.output}
        kept = [node for node in half.graph.node if not node.output or once[node.output[0]] is node]
        del half.graph.node[:]
        half.graph.node.extend(kept)
        if overflowing:
            _join_fp32_nodes(half.graph)
        return half


def _join_fp32_nodes(graph: "onnx.GraphProto") -> None:
    """Let FP32 nodes read each other's outputs: the converter casts each output to FP16 and back, where it would overflow."""
    from onnx import TensorProto

    def casts(to: int) -> "dict[str, str]":
        return {
            node.output[0]: node.input[0]
            for node in graph.node
            if node.op_type == "Cast" and any(a.name == "to" and a.i == to for a in node.attribute)
        }

    down = casts(TensorProto.FLOAT16)
    joined = {output: down[read] for output, read in casts(TensorProto.FLOAT).items() if read in down}
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = joined.get(name, name)
    kept = [node for node in graph.node if not (set(node.output) & (set(joined) - outputs))]
    read = {name for node in kept for name in node.input} | outputs
    copies = [
        type(node).FromString(node.SerializeToString())
        for node in kept
        if node.op_type != "Cast" or node.output[0] in read
    ]
    del graph.node[:]
    graph.node.extend(copies)


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


def _overflows(array: "np.ndarray", op: str) -> bool:
    """Whether a value is beyond FP16; a negative one only where an operator computed it, and no mask put it there."""
    import numpy as np

    finite = array[np.isfinite(array)]
    if not finite.size:
        return False
    computed = op in ("MatMul", "Gemm", "Conv", "ConvTranspose", "ReduceSum", "ReduceMean", "CumSum", "Pow", "Div")
    return bool(finite.max() > _LARGEST or (computed and finite.min() < -_LARGEST))


def _cut_constants(source: "onnx.ModelProto", half: "onnx.ModelProto") -> list[str]:
    """Return the outputs of Constant nodes with finite values beyond FP16; the TorchScript exporter writes constants as nodes."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    def constants(model: "onnx.ModelProto") -> "dict[str, onnx.TensorProto]":
        found = onnx_file.nodes(model.graph)
        return {n.output[0]: a.t for n in found if n.op_type == "Constant" for a in n.attribute if a.name == "value"}

    now = {name for name, tensor in constants(half).items() if tensor.data_type == TensorProto.FLOAT16}
    cut = []
    for name, tensor in constants(source).items():
        if name in now and tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            if np.any(np.isfinite(values) & (np.abs(values) > _LARGEST)):
                cut.append(name)
    return cut


def _cut(half: "onnx_ir.Model", source: "onnx_ir.Model", constants: Sequence[str]) -> list[str]:
    """Return a note on weights with finite values beyond the range of FP16, which the converter silently clips."""
    import numpy as np
    import onnx_ir

    cut = [
        name
        for name, value in half.graph.initializers.items()
        if value.dtype is onnx_ir.DataType.FLOAT16
        and any(np.any(np.isfinite(part) & (np.abs(part) > _LARGEST)) for part in _parts(_tensor(source, name)))
    ] + list(constants)
    return [f"{len(cut)} weights have values beyond FP16, clipped to {_LARGEST:g}: {', '.join(cut[:4])}"] if cut else []


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
