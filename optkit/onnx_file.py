"""What an .onnx file says of itself, and how one is saved; its external data is part of it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.artifact import Artifact, Format, Precision, sha256_of
from optkit.errors import ArtifactError, StageError, first_line
from optkit.record import Record
from optkit.tensors import Dim, DimRange, DType, TensorSpec

if TYPE_CHECKING:
    import onnx

# Protobuf holds at most 2 GiB in one message; below this the weights stay inside the one file.
ONE_FILE_BYTES = 1_500_000_000

_QUANTIZED_OPS = frozenset({
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger",
    "QLinearConv", "QLinearMatMul", "QGemm", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLSTM",
})  # fmt: skip


class OnnxFacts(Record):
    """What the file states."""

    opset: int
    ir_version: int
    producer: str
    nodes: dict[str, int]  # operator -> how many nodes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: Precision
    files: tuple[str, ...]  # external data, relative to the file's folder


def load(path: Path, weights: bool = True) -> "onnx.ModelProto":
    """Parse a file.

    Args:
        path: the .onnx file.
        weights: whether to read external data too.

    Raises:
        ArtifactError: it is missing, a folder, no ONNX model, or a part of its data is missing.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        what = "is a directory" if path.is_dir() else "no such file"
        raise ArtifactError(f"{path}: {what}; expected an ONNX model")
    try:
        model = onnx.load(str(path), load_external_data=weights)
    except (DecodeError, OSError, ValueError, RuntimeError, onnx.checker.ValidationError) as e:
        raise ArtifactError(f"{path}: cannot be read as an ONNX model, or is cut short ({first_line(e)})") from e
    if not model.graph.node or not model.opset_import:
        raise ArtifactError(f"{path}: holds no ONNX graph; expected a model made by an exporter")
    return model


def facts(path: Path) -> OnnxFacts:
    """Read what the file states, without its external data.

    Raises:
        ArtifactError: as `load`.
    """
    model = load(path, weights=False)
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    counts: dict[str, int] = {}
    for node in nodes(graph):
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return OnnxFacts(
        opset=next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0),
        ir_version=model.ir_version,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        nodes=counts,
        inputs=tuple(_spec(value, path) for value in graph.input if value.name not in weights),
        outputs=tuple(_spec(value, path) for value in graph.output),
        precision=_precision(graph, counts),
        files=_external_files(graph),
    )


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


def save(model: "onnx.ModelProto", path: Path) -> None:
    """Write a model: one file below 1.5 GB, else its weights in one file of the same name with `.data` behind."""
    import onnx

    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    external = size > ONE_FILE_BYTES
    onnx.save_model(
        model, str(path), save_as_external_data=external, location=path.name + ".data" if external else None
    )


def nodes(graph: "onnx.GraphProto") -> "Iterator[onnx.NodeProto]":
    """Yield every node of a graph and of the graphs inside its control-flow nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from nodes(inner)


def _spec(value: "onnx.ValueInfoProto", path: Path) -> TensorSpec:
    import onnx

    tensor = value.type.tensor_type
    try:
        dtype = DType(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name)
    except (ValueError, KeyError) as e:
        name = onnx.TensorProto.DataType.Name(tensor.elem_type)
        raise ArtifactError(f"{path}: {value.name!r} is of type {name}; optkit handles {', '.join(DType)}") from e
    dims: list[Dim] = []
    for axis, dim in enumerate(tensor.shape.dim):
        known = dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        dims.append(known or dim.dim_param or f"{value.name}_dim_{axis}")
    return TensorSpec(name=value.name, dtype=dtype, shape=tuple(dims))


def _precision(graph: "onnx.GraphProto", counts: Mapping[str, int]) -> Precision:
    import onnx

    if _QUANTIZED_OPS & set(counts):
        return Precision.INT8
    half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in graph.initializer)
    return Precision.FP16 if half else Precision.FP32


def _external_files(graph: "onnx.GraphProto") -> tuple[str, ...]:
    import onnx

    found = {
        entry.value
        for tensor in graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return tuple(sorted(found))
