"""The structure of a file without its values is what onnx itself reads, less these."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from optkit.onnx_file.outline import outline

LARGE = np.arange(2048, dtype=np.float32)
VALUES = ("raw_data", "float_data", "int32_data", "int64_data", "uint64_data", "double_data", "string_data")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with large and small values in initializers, in a node, in a branch, and in every field that holds values."""
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(LARGE, "in_a_branch"))],
        "branch",
        [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [2048])],
    )
    initializers = [
        numpy_helper.from_array(LARGE, "raw"),
        numpy_helper.from_array(np.ones(3, np.float32), "small"),
        helper.make_tensor("floats", TensorProto.FLOAT, [2048], LARGE),
        helper.make_tensor("ints", TensorProto.INT32, [2048], range(-1024, 1024)),
        helper.make_tensor("longs", TensorProto.INT64, [2048], range(-1024, 1024)),
        helper.make_tensor("doubles", TensorProto.DOUBLE, [2048], LARGE),
        helper.make_tensor("strings", TensorProto.STRING, [2], [b"a" * 2000, b"b"]),
    ]
    nodes = [
        helper.make_node("If", ["flag"], ["picked"], then_branch=branch, else_branch=branch),
        helper.make_node("Constant", [], ["d"], value=numpy_helper.from_array(LARGE, "in_a_node")),
        helper.make_node("Identity", ["x"], ["y"], doc_string="kept " * 1000),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch"]), helper.make_tensor_value_info("flag", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])],
        initializers,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"long": "z" * 5000})
    file = tmp_path / "model.onnx"
    onnx.save_model(model, str(file))
    return file


def tensors(model: onnx.ModelProto) -> dict[str, TensorProto]:
    """Return all tensors by name."""
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    pending = list(model.graph.node)
    for node in pending:
        for attribute in node.attribute:
            pending += attribute.g.node
            if attribute.HasField("t"):
                found[attribute.t.name] = attribute.t
    return found


def test_only_large_values_are_left_out(path: Path) -> None:
    whole, short = onnx.load(str(path)), outline(path)
    emptied = [name for name, tensor in tensors(short).items() if not any(len(getattr(tensor, f)) for f in VALUES)]
    assert sorted(emptied) == sorted(set(tensors(whole)) - {"small", "strings"})
    assert tensors(short)["strings"].string_data == [b"b"]  # each text is a field of its own
    for model in (whole, short):
        for name, tensor in tensors(model).items():
            for field in VALUES if name != "small" else ():
                tensor.ClearField(field)
        # what lies in both branches has one name, so the second is emptied too
        for attribute in model.graph.node[0].attribute:
            attribute.g.node[0].attribute[0].t.ClearField("raw_data")
    assert short == whole


def test_a_file_cut_short_is_refused_wherever_it_is_cut(path: Path) -> None:
    whole = path.read_bytes()
    inside = range(whole.index(b"\x2a"), len(whole), 61)  # the graph has begun
    for length in inside:
        path.write_bytes(whole[:length])
        with pytest.raises((ValueError, DecodeError)):
            outline(path)


@pytest.mark.parametrize("content", [b"", b"\x0f", b"\xff" * 12, b"\x3a\x85\x01" + b"\x07" * 20])
def test_what_is_no_message_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    with pytest.raises((ValueError, DecodeError)):
        outline(file)


def test_memory_is_that_of_the_graph(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.zeros(4_000_000, np.float32), "weight")
    graph = helper.make_graph([helper.make_node("Identity", ["weight"], ["y"])], "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [weight])  # fmt: skip
    onnx.save_model(helper.make_model(graph), str(tmp_path / "model.onnx"))
    tracemalloc.start()
    found = outline(tmp_path / "model.onnx")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert list(found.graph.initializer[0].dims) == [4_000_000]
    assert peak < 1_000_000  # bytes; the weight has 16 million


def test_the_rest_of_onnx_is_not_imported_and_its_classes_are_the_same(path: Path) -> None:
    code = """
import sys
from pathlib import Path
from optkit.onnx_file.outline import outline

model = outline(Path(sys.argv[1]))
assert "onnx" not in sys.modules
import onnx

assert type(model) is onnx.ModelProto
assert onnx.helper.make_model(model.graph).graph == model.graph
"""
    subprocess.run([sys.executable, "-c", code, path], check=True)
