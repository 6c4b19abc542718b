"""The inputs and outputs of a model file, with Triton's data types. Weights are not read."""

import ast
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from optkit import onnx_file
from optkit.errors import ArtifactError, first_line
from optkit.onnx_file.outline import outline
from optkit.onnx_file.reading import external_locations, parse
from optkit.pytorch.forward import torchscript_notices_off
from optkit.untrusted.archives import zip_fault
from optkit.untrusted.paths import name_fault, path_fault, shown
from optkit.untrusted.reading import MAX_CODE_BYTES, read_bytes

if TYPE_CHECKING:
    import onnx


@dataclasses.dataclass(frozen=True)
class FileTensor:
    """One input or output. In `shape`, -1 is a dynamic dimension; `shape` None means unknown."""

    name: str
    data_type: str  # for example TYPE_FP32
    shape: tuple[int, ...] | None
    needed: bool = True  # False for an input with a default value


@dataclasses.dataclass(frozen=True)
class FileTensors:
    """Inputs and outputs in the order of the file."""

    inputs: tuple[FileTensor, ...]
    outputs: tuple[FileTensor, ...]


def read_onnx(path: Path) -> FileTensors:
    """Read the inputs and outputs of an ONNX file.

    Raises:
        ArtifactError: it is not an ONNX file, or a file with its weights is missing or outside the folder.
    """
    model, tensors = parse(path, outline)
    for location in external_locations(
        tensors
    ):  # of which nothing is read, so that links may stay, as servers allow them
        fault = name_fault(location) or path_fault(path.parent / location)
        if fault:
            raise ArtifactError(f"{path.name}: its weights in {shown(location)}: {fault}")
    defaults = {tensor.name for tensor in model.graph.initializer}
    return FileTensors(
        tuple(_onnx_tensor(value, needed=value.name not in defaults) for value in model.graph.input),
        tuple(_onnx_tensor(value) for value in model.graph.output),
    )


def _onnx_tensor(value: "onnx.ValueInfoProto", needed: bool = True) -> FileTensor:
    tensor = value.type.tensor_type
    name = onnx_file.type_name(value)
    short = {"FLOAT": "FP32", "FLOAT16": "FP16", "DOUBLE": "FP64", "BFLOAT16": "BF16"}.get(name, name)
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(dim.dim_value if dim.dim_value > 0 else -1 for dim in tensor.shape.dim)
    return FileTensor(value.name, f"TYPE_{short}", shape, needed)


@dataclasses.dataclass(frozen=True)
class ForwardNames:
    """The arguments of a TorchScript forward, and the number of returned tensors (None if it is unknown)."""

    arguments: tuple[str, ...]
    returned: int | None


def read_torchscript(path: Path) -> ForwardNames:
    """Read the signature of forward in a TorchScript file. The weights are not loaded.

    Raises:
        ArtifactError: it is not a TorchScript file.
    """
    import torch

    if fault := zip_fault(path):
        raise ArtifactError(f"{path.name}: {fault}")
    try:
        with torchscript_notices_off():
            schema = torch.jit.load(str(path), map_location="meta").forward.schema
    except (RuntimeError, ValueError, AttributeError) as e:
        raise ArtifactError(f"{path.name}: cannot be loaded as TorchScript ({first_line(e)})") from e
    arguments = [argument.name for argument in schema.arguments if argument.type.kind() != "ClassType"]
    returned = schema.returns[0].type
    count = {"TensorType": 1, "TupleType": len(returned.elements()) if returned.kind() == "TupleType" else None}
    return ForwardNames(tuple(arguments), count.get(returned.kind()))


@dataclasses.dataclass(frozen=True)
class PythonModel:
    """The tensors that a model.py uses by name: input -> line, output -> line."""

    inputs: dict[str, int]
    outputs: dict[str, int]


def read_python(path: Path) -> PythonModel:
    """Read a model.py without running it.

    Raises:
        ArtifactError: it is not Python, or has no class TritonPythonModel with a method execute.
    """
    try:
        tree = ast.parse(read_bytes(path, "Python", MAX_CODE_BYTES), filename=path.name)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:  # the last two: nested too deeply
        line = f" in line {e.lineno}" if isinstance(e, SyntaxError) else ""
        raise ArtifactError(f"{path.name}: is not valid Python{line} ({getattr(e, 'msg', e)})") from e
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TritonPythonModel"]
    imported = any(
        alias.asname == "TritonPythonModel" or alias.name in ("TritonPythonModel", "*")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    )
    if not classes and not imported:
        raise ArtifactError(f"{path.name}: has no class TritonPythonModel")
    methods = {
        node.name for c in classes for node in c.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    if classes and not classes[0].bases and "execute" not in methods:
        raise ArtifactError(f"{path.name}: TritonPythonModel has no method execute")
    found: dict[str, dict[str, int]] = {"inputs": {}, "outputs": {}}
    for node in ast.walk(tree):
        used = _used_tensor(node) if isinstance(node, ast.Call) else None
        if used:
            found[used[0]].setdefault(used[1], node.lineno)  # type: ignore[attr-defined]  # a Call has it
    return PythonModel(found["inputs"], found["outputs"])


def _used_tensor(call: ast.Call) -> tuple[str, str] | None:
    """Return the kind and the name of the tensor in a call of Triton's Python API, or None if the name is not a literal."""
    name = (
        call.func.attr
        if isinstance(call.func, ast.Attribute)
        else call.func.id
        if isinstance(call.func, ast.Name)
        else ""
    )
    kind, position = {
        "get_input_tensor_by_name": ("inputs", 1),
        "get_input_config_by_name": ("inputs", 1),
        "get_output_config_by_name": ("outputs", 1),
    }.get(name, ("", 0))
    if not kind or len(call.args) <= position:
        return None
    argument = call.args[position]
    return (kind, argument.value) if isinstance(argument, ast.Constant) and isinstance(argument.value, str) else None
