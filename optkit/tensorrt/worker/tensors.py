"""Names, shapes and dtypes of tensors, and the arrays of a request."""

from __future__ import annotations

import os
from typing import Any, Sequence

from .protocol import FaultError, Json

_DTYPES = {"FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32", "INT64": "int64", "BOOL": "bool", "UINT8": "uint8"}  # fmt: skip


def describe(name: str, dtype: Any, shape: Any) -> Json:
    """Return the name, dtype and shape of a TensorRT tensor in the parent's format; -1 is a dynamic dimension."""
    return {"name": name, "dtype": _DTYPES.get(dtype.name, dtype.name.lower()), "shape": [int(d) for d in shape]}


def volume(shape: Sequence[int]) -> int:
    """Return the number of elements of a shape."""
    count = 1
    for size in shape:
        count *= int(size)
    return count


def fits(shape: Sequence[int], low: Sequence[int], high: Sequence[int]) -> bool:
    """Return whether a shape is between two others."""
    return len(shape) == len(low) and all(a <= b <= c for a, b, c in zip(low, shape, high))


def cast_exactly(name: str, array: Any, dtype: Any) -> Any:
    """Return an input in the dtype of the engine: 8.6 has INT32 instead of INT64.

    Raises:
        FaultError: a value does not fit.
    """
    import numpy as np

    if array.dtype == dtype:
        return array
    cast = array.astype(dtype)
    if not np.array_equal(cast, array):
        raise FaultError(f"input {name!r}: values of {array.dtype} do not fit into the engine's {dtype}")
    return cast


def read_feed(request: Json) -> Json:
    """Read the input arrays of a request, which are .npy files in its folder."""
    import numpy as np

    return {
        name: np.load(os.path.join(request["folder"], f"input_{i}.npy"), allow_pickle=False)
        for i, name in enumerate(request["inputs"])
    }


def write_outputs(request: Json, outputs: Json) -> None:
    """Write output arrays as .npy files into the folder of a request."""
    import numpy as np

    for i, array in enumerate(outputs.values()):
        np.save(os.path.join(request["folder"], f"output_{i}.npy"), array)
