"""What an .onnx file says of itself, and how one is saved; its external data is part of it."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.artifact import Artifact, Format, Precision, sha256_of
from optkit.artifact.tensors import Dim, DimRange, DType, TensorSpec
from optkit.errors import ArtifactError, StageError, first_line
from optkit.onnx_file.outline import outline
from optkit.record import Record, refused_as
from optkit.untrusted.names import InnerFile, inner_file_fault

if TYPE_CHECKING:
    import onnx
    import onnx_ir

# Protobuf holds at most 2 GiB in one message; below this the weights stay inside the one file.
ONE_FILE_BYTES = 1_500_000_000
_CONSTANT_WEIGHTS_IR = 4  # before, every initializer had to be an input as well
_SMALL_BYTES = 1024  # up to this a tensor stays in the graph, as onnx's own external data has it

# Numbers of onnx.proto: TensorProto.DataType and TensorProto.DataLocation.
_DTYPES = {
    1: DType.FLOAT32, 2: DType.UINT8, 3: DType.INT8, 5: DType.INT16, 6: DType.INT32, 7: DType.INT64, 9: DType.BOOL,
    10: DType.FLOAT16, 11: DType.FLOAT64,
}  # fmt: skip
_FLOAT16 = 10
_EXTERNAL = 1

_QUANTIZED_OPS = frozenset({
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger",
    "QLinearConv", "QLinearMatMul", "QGemm", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLSTM",
})  # fmt: skip


# What dynamic quantization leaves in a graph; it runs on CPUs only.
DYNAMIC_OPS = frozenset(
    {"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"}
)


class OnnxFacts(Record):
    """What the file states."""

    opset: int
    ir_version: int
    producer: str
    nodes: dict[str, int]  # operator -> how many nodes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: Precision
    files: tuple[InnerFile, ...]  # external data, relative to the file's folder
    unused_inputs: tuple[str, ...]  # no output depends on these


def load(path: Path, weights: bool = True) -> "onnx.ModelProto":
    """Parse a file. Weights that it lists as inputs too, as IR version 3 demands, become constants, as they are since version 4.

    Args:
        path: the .onnx file.
        weights: whether to read external data too.

    Raises:
        ArtifactError: it is missing, a folder, no ONNX model, or a part of its data is missing.
    """
    import onnx

    model = _parsed(path, lambda file: onnx.load(str(file), load_external_data=weights), onnx.checker.ValidationError)
    own = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in own]
    if len(inputs) < len(model.graph.input):
        kept = [copy.copy(value) for value in inputs]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        model.ir_version = max(model.ir_version, _CONSTANT_WEIGHTS_IR)
    return model


def load_lazily(path: Path) -> "onnx_ir.Model":
    """Parse a file as `load` does, and leave external data on the disk until it is asked for."""
    import onnx_ir

    model = onnx_ir.load(path)
    inputs = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    if len(inputs) < len(model.graph.inputs):
        model.graph.inputs[:] = inputs
        model.ir_version = max(model.ir_version, _CONSTANT_WEIGHTS_IR)
    return model


def _parsed(path: Path, read: Callable[[Path], "onnx.ModelProto"], *refused: type[Exception]) -> "onnx.ModelProto":
    """Read a file, whose faults are told; `refused` are errors of the reader's own that say that it is none."""
    from google.protobuf.message import DecodeError

    if not path.is_file():
        what = "is a directory" if path.is_dir() else "no such file"
        raise ArtifactError(f"{path}: {what}; expected an ONNX model")
    try:
        model = read(path)
    except (DecodeError, OSError, ValueError, RuntimeError, *refused) as e:
        raise ArtifactError(f"{path}: cannot be read as an ONNX model, or is cut short ({first_line(e)})") from e
    if not model.graph.node or not model.opset_import:
        raise ArtifactError(f"{path}: holds no ONNX graph; expected a model made by an exporter")
    broken = next(
        (name for name in _names(model.graph) if isinstance(name, bytes)), None
    )  # what protobuf cannot decode
    if broken is not None:
        raise ArtifactError(f"{path}: holds the name {broken[:80]!r}; expected UTF-8. Export the model again.")
    return model


def _names(graph: "onnx.GraphProto") -> "Iterator[str | bytes]":
    """Yield every name in a graph, those of dimensions and of external data too; one that is no UTF-8 as bytes."""
    for node in nodes(graph):
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
    for value in (*graph.input, *graph.output):
        yield from (value.name, *(dim.dim_param for dim in value.type.tensor_type.shape.dim))
    for tensor in _tensors(graph):
        yield from (tensor.name, *(entry.value for entry in tensor.external_data))


def facts(path: Path) -> OnnxFacts:
    """Read what the file states, without the values of its tensors.

    Raises:
        ArtifactError: as `load`.
    """
    model = _parsed(path, outline)
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    counts: dict[str, int] = {}
    for node in nodes(graph):
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    inputs = tuple(_spec(value, path) for value in graph.input if value.name not in weights)
    return OnnxFacts(
        opset=next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0),
        ir_version=model.ir_version,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        nodes=counts,
        inputs=inputs,
        outputs=tuple(_spec(value, path) for value in graph.output),
        precision=_precision(graph, counts),
        files=external_files(model, path),
        unused_inputs=_unused_inputs(graph, (spec.name for spec in inputs)),
    )


def has_half(path: Path) -> bool:
    """Say whether a graph computes in FP16 somewhere: it holds FP16 tensors, or casts to FP16.

    Raises:
        ArtifactError: as `load`.
    """
    graph = _parsed(path, outline).graph
    casts = (
        a.i == _FLOAT16 for node in nodes(graph) if node.op_type == "Cast" for a in node.attribute if a.name == "to"
    )
    return any(tensor.data_type == _FLOAT16 for tensor in _tensors(graph)) or any(casts)


def describe(path: Path, dims: Mapping[str, DimRange]) -> Artifact:
    """Return the artifact that a file is, with `dims` for the ranges, which an ONNX file cannot state.

    Raises:
        ArtifactError: as `load`.
    """
    found = facts(path)
    path = path.absolute()
    return Artifact(
        path=path,
        format=Format.ONNX,
        precision=found.precision,
        inputs=found.inputs,
        outputs=found.outputs,
        dims=dict(dims),
        sha256=sha256_of(path, *(path.parent / name for name in found.files)),
        files=found.files,
    )


def check(path: Path) -> None:
    """Run the ONNX checker with full shape inference on the file, by its path, so that missing data is noticed.

    Raises:
        StageError: the checker refuses the file; holds its reason.
    """
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as e:
        raise StageError(f"onnx.checker refuses the model: {first_line(e)}") from e


def load_graph(path: Path) -> "onnx.ModelProto":
    """Parse a file without its weights: initializers above 1 KiB keep their type and dimensions, and have no values.

    Raises:
        ArtifactError: as `load`.
    """
    from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

    model = load(path, weights=False)
    for tensor in model.graph.initializer:
        if is_weight(tensor):
            for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
                tensor.ClearField(field)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    for tensor in _tensors(model.graph):
        if uses_external_data(tensor):
            load_external_data_for_tensor(tensor, str(path.parent))
    return model


def is_weight(tensor: "onnx.TensorProto") -> bool:
    """Whether a tensor is above 1 KiB: what is smaller are shapes and scales, which tools that change a graph look at."""
    return _size(tensor) > _SMALL_BYTES


def save(model: "onnx.ModelProto | onnx_ir.Model", path: Path, source_bytes: int = 0) -> None:
    """Write a model: one file up to 1.5 GB, else its weights in one file of the same name with `.data` behind.

    Args:
        model: the data of an `onnx_ir.Model` is written tensor by tensor, so that lazy ones are never in memory together. A
            ModelProto loaded without its external data is written without it: put it beside that data.
        path: the .onnx file.
        source_bytes: the size of the model that it was made from. What is made from a large model is written as one, however
            small it became: protobuf needs five times the size of a single file to write it, and twice to look at it.
    """
    import onnx
    import onnx_ir

    if isinstance(model, onnx.ModelProto):
        if max(source_bytes, sum(len(tensor.raw_data) for tensor in model.graph.initializer)) <= ONE_FILE_BYTES:
            onnx.save_model(model, str(path))
            return
        model = onnx_ir.serde.deserialize_model(model)
    if max(source_bytes, _weight_bytes(model)) > ONE_FILE_BYTES:
        onnx_ir.save(model, path, external_data=data_name(path), size_threshold_bytes=_SMALL_BYTES)
    else:
        onnx_ir.save(onnx_ir.external_data.load_to_model(model), path)


def gather(path: Path, source_bytes: int = 0) -> None:
    """Put the weights of a file where `save` puts them, whatever wrote it, and delete the data files no longer used."""
    import onnx
    import onnx_ir
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    tensors = list(_tensors(load(path, weights=False).graph))
    before = _external_files(tensors, path)
    after = (data_name(path),) if max(source_bytes, sum(map(_size, tensors))) > ONE_FILE_BYTES else ()
    if before == after:
        for name in after:
            (path.parent / name).chmod(path.stat().st_mode)  # onnx writes data that only its owner may read
        return
    if after:
        model = onnx_ir.load(path)
        # The constants of nodes may lie in files of their own too, and `save` moves initializers only.
        LiftConstantsToInitializersPass()(model)
        save(model, path, source_bytes)
        release(model)
    else:
        onnx.save_model(load(path), str(path))
    for name in set(before) - set(after):
        (path.parent / name).unlink()


def release(model: "onnx_ir.Model") -> None:
    """Close the data files that a model was read from lazily; what was read of them counts as memory of this process till then."""
    import onnx_ir

    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, onnx_ir.ExternalTensor):
                value.const_value.release()


def data_name(path: Path) -> str:
    """Return the name of the one data file of a model whose weights do not fit into the model's own file."""
    return f"{path.name}.data"


def nodes(graph: "onnx.GraphProto") -> "Iterator[onnx.NodeProto]":
    """Yield every node of a graph and of the graphs inside its control-flow nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from nodes(inner)


def external_files(model: "onnx.ModelProto", path: Path) -> tuple[str, ...]:
    """Return the files of a model's external data, relative to the folder of `path`, where the model was read.

    Raises:
        ArtifactError: one leads out of the folder, or cannot be the name of a file.
    """
    return _external_files(_tensors(model.graph), path)


def _unused_inputs(graph: "onnx.GraphProto", inputs: Iterable[str]) -> tuple[str, ...]:
    read = {name for node in nodes(graph) for name in node.input} | {value.name for value in graph.output}
    return tuple(name for name in inputs if name not in read)


def keep_inputs(path: Path, inputs: Sequence[TensorSpec]) -> None:
    """Give back to a file the inputs that its exporter left out because no output depends on them, in the declared order.

    The weights are not read: external data stays as it is.
    """
    import onnx

    model = load(path, weights=False)
    found = {value.name: copy.copy(value) for value in model.graph.input}
    for spec in inputs:
        dtype = onnx.helper.np_dtype_to_tensor_dtype(spec.dtype.numpy)
        found.setdefault(spec.name, onnx.helper.make_tensor_value_info(spec.name, dtype, spec.shape))
    del model.graph.input[:]
    model.graph.input.extend(found.pop(spec.name) for spec in inputs)
    model.graph.input.extend(found.values())
    onnx.save_model(model, str(path))


def has_fp16_weights(path: Path) -> bool:
    """Whether a weight, or the scale of a quantized one, is in FP16.

    Raises:
        ArtifactError: as `load`.
    """
    return any(t.data_type == _FLOAT16 for t in load(path, weights=False).graph.initializer)


def has_float_weights_behind_qdq(path: Path) -> bool:
    """Whether a weight lies in float before a QuantizeLinear: the form for TensorRT, which quantizes it when it builds.

    Raises:
        ArtifactError: as `load`.
    """
    graph = load(path, weights=False).graph
    weights = {t.name for t in graph.initializer}
    return any(node.op_type == "QuantizeLinear" and node.input[0] in weights for node in graph.node)


def _spec(value: "onnx.ValueInfoProto", path: Path) -> TensorSpec:
    tensor = value.type.tensor_type
    dtype = _DTYPES.get(tensor.elem_type)
    if dtype is None:
        raise ArtifactError(f"{path}: {value.name!r} is of type {_type_name(value)}; optkit handles {', '.join(DType)}")
    dims: list[Dim] = []
    for axis, dim in enumerate(tensor.shape.dim):
        known = dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        dims.append(known or dim.dim_param or f"{value.name}_dim_{axis}")
    where = f"{path}: tensor {value.name[:80]!a}"
    with refused_as(ArtifactError, where, "Export the model with another name."):
        return TensorSpec(name=value.name, dtype=dtype, shape=tuple(dims))


def _type_name(value: "onnx.ValueInfoProto") -> str:
    """Return the name that onnx.proto gives a tensor's type, or its number."""
    tensor = value.DESCRIPTOR.file.message_types_by_name["TensorProto"]
    number = value.type.tensor_type.elem_type
    known = tensor.enum_types_by_name["DataType"].values_by_number.get(number)
    return known.name if known else str(number)


def _precision(graph: "onnx.GraphProto", counts: Mapping[str, int]) -> Precision:
    if _QUANTIZED_OPS & set(counts):
        return Precision.INT8
    half = any(tensor.data_type == _FLOAT16 for tensor in graph.initializer)
    return Precision.FP16 if half else Precision.FP32


def _weight_bytes(model: "onnx_ir.Model") -> int:
    values = (value for graph in model.graphs() for value in graph.initializers.values())
    return sum(value.const_value.nbytes for value in values if value.const_value is not None)


def _tensors(graph: "onnx.GraphProto") -> "Iterator[onnx.TensorProto]":
    """Yield every tensor: initializers, and constants in nodes, also of the graphs inside control-flow nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _size(tensor: "onnx.TensorProto") -> float:
    import onnx_ir

    return float(math.prod(tensor.dims) * onnx_ir.DataType(tensor.data_type).itemsize)


def _external_files(tensors: "Iterable[onnx.TensorProto]", path: Path) -> tuple[str, ...]:
    external = [tensor.external_data for tensor in tensors if tensor.data_location == _EXTERNAL]
    found = {entry.value for entries in external for entry in entries if entry.key == "location"}
    for name in found:
        if fault := inner_file_fault(name):
            raise ArtifactError(
                f"{path}: its external data: {fault}. Save the model with its data in one file beside it."
            )
    return tuple(sorted(found))
