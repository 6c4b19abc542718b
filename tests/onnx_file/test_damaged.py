"""Damaged ONNX files, changed at random from a fixed seed and on purpose: every reader refuses them in words, or reads them."""

import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from optkit import onnx_file
from optkit.errors import ArtifactError, StageError
from optkit.onnx_file import reading
from optkit.onnx_file.outline import outline
from optkit.serving.triton.lint.model_file import read_onnx
from optkit.stages import ConvertFp16, OptimizeOnnx, QuantizeDynamic, Stage
from tests.onnx_file.test_hostile import DIMS, READERS
from tests.support import hostile
from tests.support.hostile import WEIGHT, within
from tests.support.project import CommandLine, command_line

MUTATIONS = 300
ALL = {**READERS, "lint": read_onnx}

optkit = pytest.fixture(command_line)


def rich_model(external: bool) -> bytes:
    """Return a model with fields above 1 KiB at several depths, weights in every form, a branch, Q/DQ nodes and a cast."""
    weight = numpy_helper.from_array(WEIGHT, "weight")
    if external:
        weight = hostile.model({"location": "w.bin", "offset": "0", "length": "2048"}).graph.initializer[0]
    model = hostile.around(weight)
    graph = model.graph
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(WEIGHT, "constant"))
    out = [helper.make_tensor_value_info("c", TensorProto.FLOAT, [2, 256])]
    branch = helper.make_graph([constant], "inner", [], out)
    graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "scale"))
    graph.initializer.append(helper.make_tensor("listed", TensorProto.FLOAT, [512], list(range(512))))
    graph.node.extend([
        helper.make_node("If", ["flag"], ["picked"], then_branch=branch, else_branch=branch),
        helper.make_node("QuantizeLinear", ["weight", "scale"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["dq"]),
        helper.make_node("Cast", ["dq"], ["half"], to=TensorProto.FLOAT16),
    ])  # fmt: skip
    graph.doc_string = "text " * 400
    return model.SerializeToString()


def mutate(content: bytes, dice: random.Random) -> bytes:
    """Flip, set, insert or delete a few bytes; half of the places are in the first part, where structure is dense."""
    changed = bytearray(content)
    for _ in range(dice.choice([1, 1, 2, 4])):
        at = dice.randrange(len(changed) if dice.random() < 0.5 else 1 + len(changed) // 10)
        match dice.randrange(5):
            case 0:
                changed[at] ^= 1 << dice.randrange(8)
            case 1:
                changed[at] = dice.randrange(256)
            case 2:
                changed[at:at] = dice.randbytes(dice.choice([1, 2, 8]))
            case 3:
                del changed[at : at + dice.choice([1, 2, 9])]
            case 4:
                changed = changed[: 20 + at]
    return bytes(changed)


@pytest.mark.parametrize("external", [False, True], ids=["inside", "external"])
def test_what_is_changed_at_random_is_refused_or_read(external: bool, optkit: CommandLine, tmp_path: Path) -> None:
    whole, dice, refused, by_checker = rich_model(external), random.Random(0), 0, []
    path = tmp_path / "model.onnx"
    for number in range(MUTATIONS):
        content = mutate(whole, dice)
        for name, reader in ALL.items():
            path.write_bytes(content)  # `gather` and `keep_inputs` write it
            (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
            try:
                with within():
                    reader(path)
            except ArtifactError:
                refused += name == "facts"
            except StageError as e:
                by_checker.append(f"{name}: {e}")
        path.write_bytes(content)
        if number % 6 == 0:  # a whole command takes ten times what the readers take
            assert optkit("inspect", path).code in (0, 2)
    assert all(text.startswith("check: onnx.checker rejects the model: ") for text in by_checker)
    assert MUTATIONS / 10 < refused < MUTATIONS  # else the changes say nothing


def nested(depth: int) -> bytes:
    """Return a graph in a branch in a branch ...; protobuf's own library refuses to write more than 100 messages in one another."""

    def field(number: int, content: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(content)) + content

    graph = field(1, field(4, b"Identity")) + field(2, b"g" * 2000)
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, graph)
        graph = field(1, field(4, b"If") + field(5, attribute))
    opset = field(8, b"\x10\x11")
    return b"\x08\x08" + opset + field(7, graph)


def varint(number: int) -> bytes:
    """Return a number as protobuf writes it."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))


@pytest.mark.parametrize("depth", [40, 400, 5000])
@pytest.mark.parametrize("reader", ALL)
def test_a_graph_nested_too_deeply_is_refused(reader: str, depth: int, optkit: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(nested(depth))
    with within(), pytest.raises(ArtifactError, match=r"cannot be read as an ONNX model, or is cut short \("):
        ALL[reader](path)
    if reader == "facts":
        found = optkit("inspect", path)
        assert (found.code, found.out) == (2, "")


def test_a_graph_nested_as_deeply_as_protobuf_reads_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(nested(30))
    depth, graph = 0, outline(path).graph
    while graph.node[0].attribute:
        depth, graph = depth + 1, graph.node[0].attribute[0].g
    assert depth == 30


def unknown_type(model: ModelProto) -> None:
    model.graph.initializer[0].data_type = 99


def no_type(model: ModelProto) -> None:
    model.graph.initializer[0].data_type = 0


def negative_dimension(model: ModelProto) -> None:
    model.graph.initializer[0].dims[0] = -2


def endless_dimensions(model: ModelProto) -> None:
    model.graph.initializer[0].dims.extend([2**62] * 20)


def many_dimensions(model: ModelProto) -> None:
    model.graph.initializer[0].dims.extend([1] * 100_000)


def no_operator_inputs(model: ModelProto) -> None:
    model.graph.node.add(op_type="QuantizeLinear")


@pytest.mark.parametrize("external", [False, True], ids=["inside", "external"])
@pytest.mark.parametrize("reader", ALL)
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (unknown_type, r"tensor 'weight' is of the unknown data type 99; expected one of onnx\.proto"),
        (no_type, r"tensor 'weight' is of the unknown data type 0;"),
        (negative_dimension, r"tensor 'weight' has the dimensions '-2,256'; expected at most 64, from 0 on"),
        (
            endless_dimensions,
            r"tensor 'weight' has the dimensions '2,256,4611686018427387904,.* characters\); expected",
        ),
        (many_dimensions, r"tensor 'weight' has the dimensions '2,256,1,1,.* characters\); expected at most 64"),
    ],
)
def test_a_tensor_without_a_type_or_size_is_refused(
    damage: Callable[[ModelProto], None], says: str, reader: str, external: bool, tmp_path: Path
) -> None:
    model = ModelProto.FromString(rich_model(external))
    damage(model)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    with within(), pytest.raises(ArtifactError, match=rf"model\.onnx: {says}"):
        ALL[reader](path)


def test_a_node_without_inputs_is_read(tmp_path: Path) -> None:
    model = ModelProto.FromString(rich_model(False))
    no_operator_inputs(model)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert READERS["has_float_weights_behind_qdq"](path)


@pytest.mark.parametrize("reader", ALL)
@pytest.mark.parametrize(
    ("text", "field"),
    [
        (b"DequantizeLinear", "NodeProto.op_type"),
        (b"picked", "NodeProto.output"),
        (b"batch", "Dimension.dim_param"),
        (b"constant", "TensorProto.name"),
        (b"inner", "GraphProto.name"),
        (b"flag", "(NodeProto.input|ValueInfoProto.name)"),
        (b"then_", "AttributeProto.name"),
    ],
)
def test_a_text_that_is_not_utf8_is_refused(
    text: bytes, field: str, reader: str, optkit: CommandLine, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(rich_model(False).replace(text, b"\xff" + text[1:]))
    says = rf"{re.sub(r'[.]', r'[.]', field)} is b'\\xff.*', which is not valid UTF-8; expected text\. Export the model again"
    with pytest.raises(ArtifactError, match=says):
        ALL[reader](path)
    if reader == "facts":
        found = optkit("inspect", path)
        assert (found.code, found.out) == (2, "")
        assert re.search(says, found.err)


@pytest.mark.parametrize("stage", [ConvertFp16(), OptimizeOnnx(), QuantizeDynamic()], ids=lambda stage: stage.stage)
def test_a_weight_of_another_size_than_its_values_is_told_by_the_stage(stage: Stage, tmp_path: Path) -> None:
    model = hostile.around(numpy_helper.from_array(WEIGHT, "weight"))
    model.graph.initializer[0].dims[1] = 257
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(StageError, match=f"^{stage.stage}: "):
        stage.run(onnx_file.describe(path, DIMS), tmp_path / "out")


def test_the_map_of_a_damaged_file_is_closed(tmp_path: Path) -> None:
    """An error inside a field above 1 KiB: what was looked at must not keep the file open."""
    whole = rich_model(False)
    path = tmp_path / "model.onnx"
    at = whole.index(WEIGHT.tobytes()) - 40
    path.write_bytes(whole[:at] + b"\xff" * 12 + whole[at + 12 :])
    with pytest.raises(ArtifactError, match=r"cannot be read as an ONNX model, or is cut short"):
        READERS["facts"](path)


def test_a_field_does_not_reach_beyond_the_message_that_it_lies_in(tmp_path: Path) -> None:
    inner = b"\x12\x84\x80\x80\x80\x01" + b"x" * 2000  # a name that claims 256 MiB, in a graph of 2 kB
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x3a" + varint(len(inner)) + inner + b"y" * 3000)
    with pytest.raises(ValueError, match="ends in the middle of a field"):
        outline(path)


def test_sizes_are_those_of_onnx() -> None:
    for kind in onnx_ir.DataType:
        if kind not in (onnx_ir.DataType.UNDEFINED, onnx_ir.DataType.STRING):
            tensor = TensorProto(data_type=int(kind), dims=[3, 7])
            assert reading.byte_count(tensor) == -(-21 * kind.bitwidth // 8), kind
    assert reading.byte_count(TensorProto(data_type=TensorProto.STRING, dims=[3])) == 0
    assert set(TensorProto.DataType.values()) - {0} <= {*map(int, onnx_ir.DataType)}
