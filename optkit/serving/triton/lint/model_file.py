"""The inputs and outputs of a model file, with Triton's data types. Weights are not read."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit import onnx_file
from optkit.errors import ArtifactError, first_line
from optkit.onnx_file.outline import outline
from optkit.onnx_file.reading import external_locations, parse
from optkit.pytorch.forward import torchscript_notices_off
from optkit.untrusted.archives import zip_fault
from optkit.untrusted.paths import name_fault, path_fault, shown

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
    custom_operators: tuple[str, ...] = ()  # of an ONNX file: those that a library must define


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
        tuple(onnx_file.custom_operators(model)),
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
    """The arguments of a TorchScript forward, and the number of returned tensors (None if it is unknown).

    `takes_dict`: its one argument is a dict of tensors, whose keys are any names. `refused` names a type that the backend does not take.
    """

    arguments: tuple[str, ...]
    returned: int | None
    takes_dict: bool = False
    refused: str | None = None


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
    arguments = [argument for argument in schema.arguments if argument.type.kind() != "ClassType"]
    returned = schema.returns[0].type
    takes_dict = [argument.type.kind() for argument in arguments] == ["DictType"]
    faults = [] if takes_dict else [a for a in arguments if a.type.kind() not in ("TensorType", "ListType")]
    refused = f"argument {faults[0].name!r} of type {faults[0].type}; expected a Tensor" if faults else None
    if refused is None and not _is_served(returned):
        refused = f"the result {returned}; expected a Tensor, List[str] or a tuple of them"
    count = {"TensorType": 1, "TupleType": len(returned.elements()) if returned.kind() == "TupleType" else None}
    return ForwardNames(tuple(a.name for a in arguments), count.get(returned.kind()), takes_dict, refused)


def _is_served(returned: Any) -> bool:
    """Return whether the backend can send what forward returns."""
    if returned.kind() == "TupleType":
        return all(_is_served(part) and part.kind() != "TupleType" for part in returned.elements())
    if returned.kind() == "ListType":
        return bool(returned.getElementType().kind() == "StringType")
    return returned.kind() in ("TensorType", "AnyType")
