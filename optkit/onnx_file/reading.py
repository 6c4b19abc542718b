"""Reading of foreign .onnx files: a file that is damaged, or names data outside its folder, is an error."""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from optkit.errors import ArtifactError, first_line
from optkit.untrusted.paths import file_in, path_fault, shown

if TYPE_CHECKING:
    import onnx

# TensorProto.DataType of onnx.proto -> bits of one element; 0 for text.
_BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 8: 0, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2, 27: 6, 28: 6,
}  # fmt: skip
_EXTERNAL = 1  # TensorProto.DataLocation
_TEXT, _MESSAGE = 9, 11  # FieldDescriptor.TYPE_STRING and TYPE_MESSAGE
_LARGEST = 2**63  # elements
_RANK = 64  # numpy's limit
_AGAIN = "Export the model again."
_BESIDE = "Save the model again with its data beside it, or get the missing file."


class Parsed(NamedTuple):
    """A model with valid text and tensors, and all of its tensors, also those in subgraphs and attributes."""

    model: "onnx.ModelProto"
    tensors: "list[onnx.TensorProto]"


def parse(path: Path, read: "Callable[[Path], onnx.ModelProto]") -> Parsed:
    """Parse a file with `read`, and check what protobuf does not check: text is UTF-8, and tensors have a known type and a valid size.

    External data is not checked here; see `external_files`.

    Raises:
        ArtifactError: the file is missing, not a regular file, not an ONNX model, or damaged.
    """
    from google.protobuf.message import DecodeError

    fault = path_fault(path)
    if fault:
        raise ArtifactError(f"{path}: {fault}; expected an ONNX model")
    try:
        model = read(path)
    except (DecodeError, OSError, ValueError) as e:
        raise ArtifactError(f"{path}: cannot be read as an ONNX model, or is cut short ({first_line(e)})") from e
    if not model.graph.node or not model.opset_import:
        raise ArtifactError(f"{path}: contains no ONNX graph; expected a model made by an exporter")
    tensors = list(tensors_in(path, model))
    for tensor in tensors:
        _check_type(path, tensor)
    return Parsed(model, tensors)


def tensors_in(path: Path, model: "onnx.ModelProto") -> "Iterator[onnx.TensorProto]":
    """Yield every tensor of a model, and check every text: protobuf returns text that is not UTF-8 as bytes.

    Raises:
        ArtifactError: a text is not UTF-8.
    """
    from google.protobuf.message import Message

    waiting: list[Message] = [model]
    while waiting:
        for field, value in waiting.pop().ListFields():
            if field.type == _MESSAGE:
                inner = [value] if isinstance(value, Message) else value
                if field.message_type.name != "TensorProto":
                    waiting += inner
                    continue
                for tensor in inner:  # `ListFields` would copy the values
                    _check_text(path, "TensorProto.name", (tensor.name, tensor.doc_string))
                    waiting += (*tensor.external_data, *tensor.metadata_props)
                    yield tensor
            elif field.type == _TEXT and type(value) is not str:
                _check_text(path, field.full_name, (value,) if isinstance(value, bytes) else value)


def external_files(path: Path, tensors: "Iterable[onnx.TensorProto]") -> tuple[str, ...]:
    """Return the files of a model's external data, relative to the model's folder, after checking each of them.

    Raises:
        ArtifactError: a location leads out of that folder, is a link or not a regular file, or is too small for a tensor.
    """
    sizes: dict[str, int] = {}
    for tensor in tensors:
        if tensor.data_location != _EXTERNAL:
            continue
        for location in _locations(tensor):
            if location not in sizes:
                sizes[location] = _size_of(path, location)
            _check_extent(path, tensor, location, sizes[location])
    return tuple(sorted({str(PurePosixPath(location)) for location in sizes}))


def external_locations(tensors: "Iterable[onnx.TensorProto]") -> list[str]:
    """Return the unchecked locations of external data, to be shown, or to be checked by `optkit.untrusted.paths`."""
    return sorted(
        {location for tensor in tensors if tensor.data_location == _EXTERNAL for location in _locations(tensor)}
    )


def byte_count(tensor: "onnx.TensorProto") -> int:
    """Return the size of a tensor's values; 0 for text, whose elements have no fixed size."""
    elements: int = math.prod(tensor.dims)
    return -(-elements * _BITS[tensor.data_type] // 8)  # rounded up


def _check_text(path: Path, field: str, texts: "Iterable[str | bytes]") -> None:
    for text in texts:
        if isinstance(text, bytes):
            where = field.removeprefix("onnx.")
            raise ArtifactError(f"{path}: {where} is {text[:40]!r}, which is not valid UTF-8; expected text. {_AGAIN}")


def _check_type(path: Path, tensor: "onnx.TensorProto") -> None:
    where = f"{path}: tensor {shown(tensor.name)}"
    if tensor.data_type not in _BITS:
        raise ArtifactError(
            f"{where} is of the unknown data type {tensor.data_type}; expected one of onnx.proto. {_AGAIN}"
        )
    dims = tensor.dims
    if len(dims) > _RANK or any(dim < 0 for dim in dims) or math.prod(dims) >= _LARGEST:
        found = shown(",".join(map(str, dims)))
        raise ArtifactError(f"{where} has the dimensions {found}; expected at most {_RANK}, from 0 on. {_AGAIN}")


def _locations(tensor: "onnx.TensorProto") -> list[str]:
    """Return the locations of a tensor: exactly one, unless the file is damaged."""
    return [entry.value for entry in tensor.external_data if entry.key == "location"] or [""]


def _size_of(path: Path, location: str) -> int:
    file = file_in(path.parent, location, f"{path}: external data", _BESIDE)
    found = file.stat()
    if os.path.samestat(found, path.stat()):
        raise ArtifactError(f"{path}: external data {shown(location)} is the model file itself. {_BESIDE}")
    return found.st_size


def _check_extent(path: Path, tensor: "onnx.TensorProto", location: str, size: int) -> None:
    """Check that a tensor's values are inside its file."""
    where, needed = f"{path}: external data {shown(location)} of tensor {shown(tensor.name)}", byte_count(tensor)
    offset, length = (_number(where, tensor, key, default) for key, default in (("offset", 0), ("length", needed)))
    if length != needed:
        raise ArtifactError(f"{where}: length is {length}; expected {needed}, by its type and dimensions. {_AGAIN}")
    if offset + length > size:
        raise ArtifactError(
            f"{where}: {length} bytes from {offset} on; the file has {size}. It is cut short, or belongs to another model: get it again."
        )


def _number(where: str, tensor: "onnx.TensorProto", key: str, default: int) -> int:
    """Return the offset or length of a tensor."""
    found = default
    for entry in tensor.external_data:
        if entry.key == key:
            if not (entry.value.isascii() and entry.value.isdigit() and len(entry.value) < 20):
                raise ArtifactError(
                    f"{where}: {key} is {shown(entry.value)}; expected a whole number from 0 on. {_AGAIN}"
                )
            found = int(entry.value)
    return found
