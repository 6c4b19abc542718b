"""The values of all nodes of an ONNX file on one feed, for the search of a node at fault."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit import onnx_file
from optkit.artifact.tensors import Feed

if TYPE_CHECKING:
    import numpy as np

_MOST_BYTES = 2_000_000_000  # of all values, in memory at the same time


def node_values(path: Path, feed: Feed) -> "dict[str, np.ndarray] | None":
    """Return the float outputs of the nodes of a file by name, computed without optimizations; None if they or the file are too large."""
    import numpy as np
    import onnxruntime
    from onnx import helper

    model = onnx_file.load(path)
    if model.ByteSize() > onnx_file.content.ONE_FILE_BYTES:
        return None
    known = {value.name for value in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name and name not in known]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs = [value.name for value in session.get_outputs()]
    found: Mapping[str, Any] = dict(zip(outputs, session.run(outputs, dict(feed)), strict=True))
    arrays = {name: a for name, a in found.items() if isinstance(a, np.ndarray) and a.dtype.kind == "f"}
    return arrays if sum(array.nbytes for array in arrays.values()) < _MOST_BYTES else None
