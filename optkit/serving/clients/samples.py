"""What a generated client can be tried with: arrays, JSON, or a picture, the same byte for byte each time."""

import io
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from optkit.artifact.tensors import Feed, TensorSpec
from optkit.data import write_npz

_PIXELS = 64  # the side of the picture, where an image model takes any size


def npz_bytes(sample: Feed) -> bytes:
    """Return arrays by name as one .npz."""
    stream = io.BytesIO()
    write_npz(stream, sample)
    return stream.getvalue()


def json_bytes(sample: Feed) -> bytes:
    """Return arrays by name as a JSON object of nested lists."""
    return (json.dumps({name: array.tolist() for name, array in sample.items()}, allow_nan=False) + "\n").encode()


def png_bytes(spec: TensorSpec, image: Mapping[str, Any]) -> bytes:
    """Return a picture of grey steps that becomes the input, as PNG without compression, whose bytes no zlib changes."""
    height, width = spec.shape[:2] if image["layout"] == "hwc" else spec.shape[-2:]
    free = image["resize"] is not None  # any size is resized
    rows, columns = (_PIXELS if free or isinstance(side, str) else side for side in (height, width))
    pixels = np.add.outer(np.arange(rows), np.arange(columns)) % 256
    raw = b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in pixels)  # filter 0 before each row
    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)  # 8 bits, grey
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw, 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
