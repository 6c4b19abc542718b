"""The largest magnitude of each channel, however the data is cut."""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from optkit.quantization.calibration.channels import channel_magnitudes


def test_magnitudes_do_not_depend_on_how_the_data_is_cut(tmp_path: Path) -> None:
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    graph = helper.make_graph(
        [node], "g", value[:1], value[1:], [numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")]
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    rows = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    for size in (1, 7, 20):
        feeds = [{"x": rows[start : start + size]} for start in range(0, 20, size)]
        found = channel_magnitudes(path, ["x"], feeds)
        assert list(found) == ["x"]
        assert np.array_equal(found["x"], np.abs(rows).max(axis=0))
