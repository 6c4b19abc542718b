"""The facts of an .onnx file, and reading and writing it with its external data."""

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.artifact import Artifact, Format, Precision, files_beside
from optkit.artifact.tensors import Dim, DimRange, DType, TensorSpec
from optkit.errors import ArtifactError, StageError, first_line
from optkit.hashing import sha256_of
from optkit.onnx_file.outline import outline
from optkit.onnx_file.reading import byte_count, external_files, parse, tensors_in
from optkit.record import Record, validation_error_as
from optkit.untrusted.paths import FileName

if TYPE_CHECKING:
    import onnx
    import onnx_ir

# A protobuf message has at most 2 GiB; below this limit the weights stay in one file.
ONE_FILE_BYTES = 1_500_000_000
_CONSTANT_WEIGHTS_IR = 4  # before, every initializer had to be an input too
_SMALL_BYTES = 1024  # smaller tensors stay in the graph, as in onnx's own external data

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


# The operators of dynamic quantization, which runs on CPUs only.
DYNAMIC_OPS = frozenset(
    {"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"}
)


class OnnxFacts(Record):
    """The facts of an ONNX file."""

    opset: int
    ir_version: int
    producer: str
    nodes: dict[str, int]  # operator -> number of nodes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: Precision
    files: tuple[FileName, ...]  # external data, relative to the file's folder
    unused_inputs: tuple[str, ...]  # no output depends on these


def load(path: Path, weights: bool = True) -> "onnx.ModelProto":
    """Parse a file. Weights that are also inputs, as IR version 3 requires, become constants, as since version 4.

    Args:
        path: the .onnx file.
        weights: whether to read external data.

    Raises:
        ArtifactError: the file is missing, a folder, not an ONNX model, or damaged; or external data is missing, damaged, or outside
            its folder.
    """
    model, tensors, files = _opened(path, _whole)
    for tensor in tensors if files else ():
        if tensor.data_location == _EXTERNAL:
            # If a tensor also has inline values, onnx would write these to its external file.
            tensor.ClearField("raw_data")
    if weights and files:
        _load_external_data(path, tensors)
    own = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in own]
    if len(inputs) < len(model.graph.input):
        kept = [copy.copy(value) for value in inputs]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        model.ir_version = max(model.ir_version, _CONSTANT_WEIGHTS_IR)
    return model


def load_lazily(path: Path) -> "onnx_ir.Model":
    """Parse a file like `load`, but read external data only when it is used.

    Raises:
        ArtifactError: as `load`.
    """
    import onnx_ir

    proto = load(path, weights=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about keys that onnx does not know
            model = onnx_ir.serde.deserialize_model(proto)
    except Exception as e:  # it raises plain exceptions of many types
        raise ArtifactError(f"{path}: cannot be read as an ONNX model ({first_line(e)})") from e
    onnx_ir.external_data.set_base_dir(model.graph, path.parent)
    return model


def _opened(
    path: Path, read: "Callable[[Path], onnx.ModelProto]"
) -> "tuple[onnx.ModelProto, list[onnx.TensorProto], tuple[str, ...]]":
    """Return a model, its tensors, and the files of its external data, which are all in the model's folder."""
    model, tensors = parse(path, read)
    return model, tensors, external_files(path, tensors)


def _whole(path: Path) -> "onnx.ModelProto":
    import onnx

    return onnx.load(str(path), format="protobuf", load_external_data=False)


def _load_external_data(path: Path, tensors: "Iterable[onnx.TensorProto]") -> None:
    import onnx
    from onnx.external_data_helper import load_external_data_for_tensor

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about keys that onnx does not know
            for tensor in tensors:
                if tensor.data_location == _EXTERNAL:
                    load_external_data_for_tensor(tensor, str(path.parent))
    except (OSError, ValueError, RuntimeError, onnx.checker.ValidationError) as e:
        raise ArtifactError(f"{path}: its external data cannot be read ({first_line(e)})") from e


def facts(path: Path) -> OnnxFacts:
    """Read the facts of a file, without the values of its tensors.

    Raises:
        ArtifactError: as `load`.
    """
    model, _, files = _opened(path, outline)
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
        files=files,
        unused_inputs=_unused_inputs(graph, (spec.name for spec in inputs)),
    )


def has_half(path: Path) -> bool:
    """Return whether any part of a graph computes in FP16: it has FP16 tensors, or casts to FP16.

    Raises:
        ArtifactError: as `load`.
    """
    model, tensors, _ = _opened(path, outline)
    casts = (
        a.i == _FLOAT16
        for node in nodes(model.graph)
        if node.op_type == "Cast"
        for a in node.attribute
        if a.name == "to"
    )
    return any(tensor.data_type == _FLOAT16 for tensor in tensors) or any(casts)


def describe(path: Path, dims: Mapping[str, DimRange]) -> Artifact:
    """Return the artifact of a file, with the ranges `dims`, which an ONNX file does not contain.

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
        sha256=sha256_of(path, *files_beside(path, found.files)),
        files=found.files,
    )


def check(path: Path) -> None:
    """Run the ONNX checker with full shape inference on the file, by its path, so that it also checks external data.

    Raises:
        StageError: the checker rejects the file; the message has its reason.
        ArtifactError: as `load`.
    """
    import onnx

    _opened(path, outline)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as e:
        raise StageError(f"onnx.checker rejects the model: {first_line(e)}") from e


def load_graph(path: Path) -> "onnx.ModelProto":
    """Parse a file without its weights: initializers above 1 KiB keep their type and dimensions, but have no values.

    Raises:
        ArtifactError: as `load`.
    """
    model = load(path, weights=False)
    for tensor in model.graph.initializer:
        if is_weight(tensor):
            for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
                tensor.ClearField(field)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    _load_external_data(path, tensors_in(path, model))
    return model


def is_weight(tensor: "onnx.TensorProto") -> bool:
    """Whether a tensor is above 1 KiB. Smaller ones are shapes and scales; tools that change a graph need their values."""
    return byte_count(tensor) > _SMALL_BYTES


def save(model: "onnx.ModelProto | onnx_ir.Model", path: Path, source_bytes: int = 0) -> None:
    """Write a model: one file up to 1.5 GB; above, its weights go into a second file with the suffix `.data`.

    Args:
        model: the data of an `onnx_ir.Model` is written tensor by tensor, so that lazy tensors are never all in memory. A ModelProto
            without its external data is written without it: write it beside that data.
        path: the .onnx file.
        source_bytes: the size of the source model. A model from a large source is written like a large one, even if it is small now:
            protobuf needs five times the size of a single file to write it, and twice its size to read it.
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
    """Move the weights of a file to the place where `save` writes them, and delete unused data files."""
    import onnx
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    _, tensors, before = _opened(path, _whole)
    after = (data_name(path),) if max(source_bytes, sum(map(byte_count, tensors))) > ONE_FILE_BYTES else ()
    if before == after:
        for name in after:
            (path.parent / name).chmod(path.stat().st_mode)  # onnx writes data files that only the owner can read
        return
    if after:
        model = load_lazily(path)
        # Constants of nodes may have external data too, and `save` moves only initializers.
        LiftConstantsToInitializersPass()(model)
        save(model, path, source_bytes)
        release(model)
    else:
        onnx.save_model(load(path), str(path))
    for file in files_beside(path, set(before) - set(after)):
        file.unlink()


def release(model: "onnx_ir.Model") -> None:
    """Close the data files of a lazily loaded model, which frees their mapped memory."""
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
            if attribute.HasField("g"):
                yield from nodes(attribute.g)
            for inner in attribute.graphs:
                yield from nodes(inner)


def _unused_inputs(graph: "onnx.GraphProto", inputs: Iterable[str]) -> tuple[str, ...]:
    read = {name for node in nodes(graph) for name in node.input} | {value.name for value in graph.output}
    return tuple(name for name in inputs if name not in read)


def keep_inputs(path: Path, inputs: Sequence[TensorSpec]) -> None:
    """Add the inputs that the exporter removed because no output depends on them, in the declared order.

    The weights are not read: external data stays unchanged.
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
    """Whether a weight, or the scale of a quantized weight, is in FP16.

    Raises:
        ArtifactError: as `load`.
    """
    return any(t.data_type == _FLOAT16 for t in load(path, weights=False).graph.initializer)


def has_float_weights_behind_qdq(path: Path) -> bool:
    """Whether a QuantizeLinear reads a float weight: the form for TensorRT, which quantizes weights during the build.

    Raises:
        ArtifactError: as `load`.
    """
    graph = load(path, weights=False).graph
    weights = {t.name for t in graph.initializer}
    return any(node.op_type == "QuantizeLinear" and weights.intersection(node.input[:1]) for node in graph.node)


def _spec(value: "onnx.ValueInfoProto", path: Path) -> TensorSpec:
    tensor = value.type.tensor_type
    dtype = _DTYPES.get(tensor.elem_type)
    if dtype is None:
        raise ArtifactError(f"{path}: {value.name!r} is of type {type_name(value)}; optkit handles {', '.join(DType)}")
    dims: list[Dim] = []
    for axis, dim in enumerate(tensor.shape.dim):
        known = dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        dims.append(known or dim.dim_param or f"{value.name}_dim_{axis}")
    where = f"{path}: tensor {value.name[:80]!a}"
    with validation_error_as(ArtifactError, where, "Export the model with another name."):
        return TensorSpec(name=value.name, dtype=dtype, shape=tuple(dims))


def type_name(value: "onnx.ValueInfoProto") -> str:
    """Return the name of a tensor's type in onnx.proto, or its number."""
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
