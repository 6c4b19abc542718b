from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from optkit import onnx_file
from optkit.artifact import Artifact, Precision
from optkit.artifact.tensors import DType
from optkit.errors import ArtifactError, StageError
from optkit.runners import open_runner
from optkit.stages import ConvertFp16, OptimizeOnnx, QuantizeDynamic, Stage
from tests.support import zoo
from tests.support.needs import NARROW


def external(folder: Path) -> Path:
    """Write a model whose weight lies in a second file."""
    weight = numpy_helper.from_array(np.arange(2048, dtype=np.float32), "weight")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "weight"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2048])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2048])],
        [weight],
    )
    path = folder / "big.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, str(path), save_as_external_data=True, location="big.onnx.data")
    return path


def test_a_file_states_its_contract(onnx_linear: Artifact) -> None:
    facts = onnx_file.facts(onnx_linear.path)
    assert facts.opset == 17
    assert facts.nodes == {"Gemm": 1}
    assert [str(spec) for spec in facts.inputs] == ["input:float32[batch,4]"]
    assert [str(spec) for spec in facts.outputs] == ["output:float32[batch,3]"]
    assert facts.precision is Precision.FP32
    assert facts.files == ()
    assert facts.producer.startswith("pytorch")
    onnx_file.check(onnx_linear.path)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x07\x12\x07pytorch", bytes(range(256)) * 8, b"PK\x03\x04"])
def test_what_is_no_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.onnx: (cannot be read as an ONNX model|contains no ONNX graph)"):
        onnx_file.facts(path)


def read(path: Path) -> None:
    onnx_file.facts(path)
    onnx_file.check(path)


def test_a_file_cut_short_is_refused_wherever_it_is_cut(onnx_copy: Path) -> None:
    whole = onnx_copy.read_bytes()
    for length in range(0, len(whole), 7):
        onnx_copy.write_bytes(whole[:length])
        with pytest.raises((ArtifactError, StageError)):
            read(onnx_copy)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none\.onnx: no such file; expected an ONNX model"):
        onnx_file.load(tmp_path / "none.onnx")
    with pytest.raises(ArtifactError, match=r"is a directory; expected an ONNX model"):
        onnx_file.load(tmp_path)


def test_external_data_is_part_of_the_artifact(tmp_path: Path) -> None:
    path = external(tmp_path)
    artifact = onnx_file.describe(path, {})
    assert artifact.files == ("big.onnx.data",)
    assert artifact.size_bytes > 8192
    onnx_file.check(path)
    (tmp_path / "big.onnx.data").write_bytes(b"\0" * 8192)
    assert not artifact.is_intact()


def test_missing_external_data_is_noticed(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "big.onnx.data").unlink()
    for read in (onnx_file.load, onnx_file.facts, lambda path: onnx_file.describe(path, {}), onnx_file.check):
        with pytest.raises(
            ArtifactError, match=r"big\.onnx: external data 'big\.onnx\.data' is missing; expected a regular"
        ):
            read(path)


def test_large_weights_go_into_one_file_beside_the_model(
    onnx_linear: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optkit.onnx_file.content.ONE_FILE_BYTES", 16)
    model = onnx_file.load(onnx_linear.path)
    for tensor in model.graph.initializer:  # onnx keeps small tensors inside
        tensor.raw_data = tensor.raw_data * 100
        tensor.dims[0] *= 100
    onnx_file.save(model, tmp_path / "model.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert onnx_file.facts(tmp_path / "model.onnx").files == ("model.onnx.data",)


def test_the_checker_says_why(onnx_copy: Path) -> None:
    model = onnx.load(onnx_copy)
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, onnx_copy)
    with pytest.raises(StageError, match=r"onnx\.checker rejects the model: .*NoSuchOperator"):
        onnx_file.check(onnx_copy)


def test_a_type_that_no_feed_can_have_is_named(onnx_copy: Path) -> None:
    model = onnx.load(onnx_copy)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    onnx.save(model, onnx_copy)
    with pytest.raises(ArtifactError, match=r"'input' is of type STRING; optkit handles float32, "):
        onnx_file.facts(onnx_copy)


@pytest.mark.parametrize("number", [number for number in TensorProto.DataType.values() if number])
def test_a_type_is_what_onnx_says_it_is(number: int, onnx_copy: Path) -> None:
    model = onnx.load(onnx_copy)
    model.graph.input[0].type.tensor_type.elem_type = number
    onnx.save(model, onnx_copy)
    name = helper.tensor_dtype_to_np_dtype(number).name
    if name in set(DType):
        assert onnx_file.facts(onnx_copy).inputs[0].dtype == name
    else:
        with pytest.raises(ArtifactError, match=f"is of type {TensorProto.DataType.Name(number)};"):
            onnx_file.facts(onnx_copy)


def test_a_type_of_a_later_onnx_is_told_by_its_number(onnx_copy: Path) -> None:
    model = onnx.load(onnx_copy)
    model.graph.input[0].type.tensor_type.elem_type = 99
    onnx.save(model, onnx_copy)
    with pytest.raises(ArtifactError, match="'input' is of type 99; optkit handles"):
        onnx_file.facts(onnx_copy)


def test_a_dimension_without_a_name_gets_one(onnx_copy: Path) -> None:
    model = onnx.load(onnx_copy)
    model.graph.input[0].type.tensor_type.shape.dim[0].Clear()
    onnx.save(model, onnx_copy)
    assert onnx_file.facts(onnx_copy).inputs[0].shape == ("input_dim_0", 4)


def test_nodes_inside_control_flow_are_counted() -> None:
    def graph(name: str, nodes: list[onnx.NodeProto]) -> onnx.GraphProto:
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])

    inner = graph("then", [helper.make_node("Abs", ["x"], ["y"])])
    other = graph("else", [helper.make_node("Neg", ["x"], ["y"])])
    outer = graph("main", [helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=other)])
    assert sorted(node.op_type for node in onnx_file.nodes(outer)) == ["Abs", "If", "Neg"]


def ir_3(path: Path) -> Path:
    """Write a model as IR version 3 has them: every weight is an input as well."""
    tensor, floats = helper.make_tensor_value_info, TensorProto.FLOAT
    weight = numpy_helper.from_array(np.ones((4, 3), np.float32) / 4, "weight")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "old",
        [tensor("x", floats, ["batch", 4]), tensor("weight", floats, [4, 3])],
        [tensor("y", floats, ["batch", 3])],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=3), path)
    return path


@pytest.mark.parametrize("stage", [ConvertFp16(), QuantizeDynamic(reduce_range=NARROW), OptimizeOnnx()], ids=str)
def test_weights_that_an_old_file_lists_as_inputs_are_weights(stage: Stage, tmp_path: Path) -> None:
    path = ir_3(tmp_path / "old.onnx")
    old = onnx_file.describe(path, zoo.BATCH)
    assert onnx_file.facts(path).ir_version == 3
    assert [spec.name for spec in old.inputs] == ["x"]
    made = stage.run(old, tmp_path / "out")
    onnx_file.check(made.path)
    assert [value.name for value in onnx.load(made.path).graph.input] == ["x"]
    assert onnx_file.facts(made.path).ir_version >= 4
    with open_runner(made) as runner:
        assert np.allclose(runner.infer({"x": np.ones((2, 4), np.float32)})["y"], 1, atol=0.05)
