"""The structure of an .onnx file without the values of its tensors; the reading time does not depend on the size of the weights."""

import importlib.util
import mmap
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.untrusted.paths import is_file

if TYPE_CHECKING:
    import onnx
    from google.protobuf.descriptor import Descriptor

_MESSAGES = "onnx.onnx_ml_pb2"

_LARGE_BYTES = 1024  # smaller fields stay unchanged
_VALUES = frozenset({"raw_data", "float_data", "int32_data", "int64_data", "uint64_data", "double_data", "string_data"})
_DEEPEST = 100  # nested messages; protobuf's own limit
_VARINT, _EIGHT_BYTES, _COUNTED, _FOUR_BYTES = 0, 1, 2, 5  # https://protobuf.dev/programming-guides/encoding


def outline(path: Path) -> "onnx.ModelProto":
    """Parse a file like `onnx.load`, but without tensor values above 1 KiB; these tensors keep name, type and dimensions.

    The values are skipped in the file, so time and memory depend only on the graph.

    Raises:
        ValueError: the file is cut short, nested too deeply, or not in protobuf's format.
        DecodeError: its fields do not form a model.
        OSError: the file cannot be read.
    """
    model = _new_model()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        short = _shortened(data, 0, len(data), model.DESCRIPTOR)
    model.ParseFromString(short)
    return model


def _new_model() -> "onnx.ModelProto":
    """Return an empty model from onnx's message classes only: importing all of `onnx` takes 50 ms and 5 MiB more.

    Protobuf has one class per message, so a later import of `onnx` uses the same classes.
    """
    package = None if _MESSAGES in sys.modules else importlib.util.find_spec("onnx")
    file = Path(*(package.submodule_search_locations or ())[:1], "onnx_ml_pb2.py") if package else Path()
    if not is_file(file):
        import onnx

        return onnx.ModelProto()
    spec = importlib.util.spec_from_file_location(_MESSAGES, file)
    assert spec is not None
    assert spec.loader is not None
    messages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(messages)
    model: onnx.ModelProto = messages.ModelProto()
    return model


def _shortened(data: mmap.mmap, start: int, end: int, message: "Descriptor", depth: int = 0) -> bytes:
    """Return the message between two positions without the values of its tensors.

    Positions are passed instead of slices: an error would keep a memoryview alive, and the map could not be closed.
    """
    if depth > _DEEPEST:
        raise ValueError(f"more than {_DEEPEST} messages are nested")
    parts = []
    at = kept = start
    while at < end:
        field_at = at
        key, at = _varint(data, at, end)
        length, body = _extent(data, at, end, key & 7)
        at = body + length
        if at > end:
            raise ValueError("it ends in the middle of a field")
        field = message.fields_by_number.get(key >> 3)
        if key & 7 != _COUNTED or length <= _LARGE_BYTES or field is None:
            continue
        if message.name == "TensorProto" and field.name in _VALUES:
            parts.append(data[kept:field_at])
            kept = at
        elif field.message_type is not None:
            inner = _shortened(data, body, at, field.message_type, depth + 1)
            parts += [data[kept:field_at], _encoded(key), _encoded(len(inner)), inner]
            kept = at
    return b"".join((*parts, data[kept:end]))


def _extent(data: mmap.mmap, at: int, end: int, kind: int) -> tuple[int, int]:
    """Return the length of a field's content, and its start."""
    if kind == _VARINT:
        return 0, _varint(data, at, end)[1]
    if kind == _COUNTED:
        return _varint(data, at, end)
    if kind in (_EIGHT_BYTES, _FOUR_BYTES):
        return (8 if kind == _EIGHT_BYTES else 4), at
    raise ValueError(f"a field has the unknown wire type {kind}")


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """Return a number with seven bits per byte, the lowest first, and the position after it."""
    number = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
    raise ValueError("it ends in the middle of a number")


def _encoded(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))
