"""Which nodes the quantizing stages take, and with which types: read back from the file."""

import errno
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from optkit import onnx_file
from optkit.artifact import Artifact
from optkit.errors import StageError
from optkit.runners import open_runner
from optkit.stages import QuantizeDynamic, QuantizeStatic, Stage
from optkit.stages.quantizing import has_attention
from tests.support import zoo
from tests.support.needs import NARROW


def chain(path: Path, names: tuple[str, ...] = ("a/first", "a/second", "b/last")) -> Artifact:
    """Write x (batch, 8) through matrix products of these names, each followed by a Relu."""
    rng = np.random.default_rng(0)
    nodes, weights, read = [], [], "x"
    for i, name in enumerate(names):
        weights.append(numpy_helper.from_array(rng.standard_normal((8, 8)).astype(np.float32), f"w{i}"))
        nodes.append(helper.make_node("MatMul", [read, f"w{i}"], [f"h{i}"], name=name))
        nodes.append(helper.make_node("Relu", [f"h{i}"], [f"r{i}" if i < len(names) - 1 else "y"], name=f"relu{i}"))
        read = f"r{i}"
    return write(path, nodes, weights)


def write(path: Path, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto]) -> Artifact:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, ["batch", 8])], [info("y", TensorProto.FLOAT, ["batch", 8])], weights
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return onnx_file.describe(path, zoo.BATCH)


def static(folder: Path, **keys: object) -> QuantizeStatic:
    (folder / "data.py").write_text(
        "import numpy as np\nrng = np.random.default_rng(1)\n"
        "feeds = [{'x': rng.standard_normal((8, 8)).astype(np.float32)} for _ in range(4)]\n"
    )
    return QuantizeStatic.model_validate({"calibration": f"{folder}/data.py:feeds", "reduce_range": NARROW, **keys})


def in_float(made: Artifact) -> set[str]:
    """Return the products that were not quantized."""
    model = onnx.load(made.path)
    integers = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    return {node.name for node in products if node.input[1] not in integers}


SELECTIONS = [
    ({}, set()),
    ({"exclude": ("a/*",)}, {"a/first", "a/second"}),
    ({"exclude": ("b/last", "*/second")}, {"a/second", "b/last"}),
    ({"keep_first_last": True}, {"a/first", "b/last"}),
]


@pytest.mark.parametrize(("keys", "expected"), SELECTIONS, ids=[str(keys) for keys, _ in SELECTIONS])
@pytest.mark.parametrize("dynamic", [True, False], ids=["dynamic", "static"])
def test_nodes_are_left_out_by_name_and_place(
    dynamic: bool, keys: dict[str, object], expected: set[str], tmp_path: Path
) -> None:
    stage: Stage = QuantizeDynamic.model_validate(keys) if dynamic else static(tmp_path, **keys)
    made = stage.run(chain(tmp_path / "m.onnx"), tmp_path / "out")
    assert in_float(made) == expected


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"exclude": ("a/*",)}, "stays in float: 2 MatMul (excluded)"),
        (
            {"keep_first_last": True},
            "stays in float: 2 MatMul (the first or the last layer, or without a constant weight)",
        ),
    ],
)
def test_why_a_layer_stays_in_float_is_noted(keys: dict[str, object], says: str, tmp_path: Path) -> None:
    made = static(tmp_path, **keys).run(chain(tmp_path / "m.onnx"), tmp_path / "out")
    assert says in made.notes


@pytest.mark.parametrize(
    ("keys", "why"),
    [({"op_types": ("MatMul",)}, "not in op_types"), ({"exclude": ("gemm",)}, "excluded")],
)
def test_a_gemm_that_the_quantizer_makes_a_matmul_of_is_told_as_the_gemm_it_was(
    keys: dict[str, object], why: str, tmp_path: Path
) -> None:
    eye = np.eye(8, dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("Gemm", ["h", "v"], ["y"], name="gemm"),
    ]
    source = write(
        tmp_path / "m.onnx", nodes, [numpy_helper.from_array(eye, "w"), numpy_helper.from_array(2 * eye, "v")]
    )
    made = QuantizeDynamic.model_validate(keys).run(source, tmp_path / "out")
    assert made.notes[1] == f"stays in float: 1 Gemm ({why})"


def test_a_recurrent_layer_stays_in_float(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = {"w": (8, 8), "wx": (1, 32, 8), "wh": (1, 32, 8)}
    tensors = [numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), n) for n, shape in shapes.items()]
    tensors.append(numpy_helper.from_array(np.array([0], np.int64), "axis"))
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("Unsqueeze", ["h", "axis"], ["time"], name="time"),
        helper.make_node("LSTM", ["time", "wx", "wh"], ["", "last", ""], hidden_size=8, name="lstm"),
        helper.make_node("Squeeze", ["last", "axis"], ["y"], name="squeeze"),
    ]
    made = QuantizeDynamic().run(write(tmp_path / "m.onnx", nodes, tensors), tmp_path / "out")
    assert made.notes[1] == "stays in float: 1 LSTM (only quantize-torch quantizes recurrent layers)"


def test_a_name_with_brackets_means_itself(tmp_path: Path) -> None:
    source = chain(tmp_path / "m.onnx", ("block[0]", "block[1]"))
    assert in_float(QuantizeDynamic(exclude=("block[1]",)).run(source, tmp_path / "out")) == {"block[1]"}


def test_operators_are_chosen_and_left_out(tmp_path: Path) -> None:
    source = chain(tmp_path / "m.onnx")
    ranges = Counter(n.op_type for n in onnx.load(static(tmp_path).run(source, tmp_path / "all").path).graph.node)
    only = static(tmp_path, op_types=("MatMul",), activation_type="int8").run(source, tmp_path / "only")
    assert ranges["Relu"] == 0  # part of the product before it
    assert Counter(n.op_type for n in onnx.load(only.path).graph.node)["Relu"] == 3
    with pytest.raises(
        StageError, match=r"nothing would become INT8: .*, and the model has them, but all are excluded$"
    ):
        QuantizeDynamic(exclude_ops=("MatMul",)).run(source, tmp_path / "none")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"exclude": ("a/frist",)}, r"exclude: no node matches 'a/frist'; similar names are a/first"),
        ({"exclude": ("/encoder/*",)}, r"exclude: no node matches '/encoder/\*'; similar names are \S+"),
        ({"exclude_ops": ("Matmul",)}, r"exclude_ops: the model has no Matmul node; it has MatMul"),
        ({"op_types": ("Conv",)}, r"op_types: the model has no Conv node; it has MatMul, Relu"),
    ],
)
def test_what_matches_nothing_is_refused_with_near_names(keys: dict[str, object], says: str, tmp_path: Path) -> None:
    source = chain(tmp_path / "m.onnx")
    for stage in (QuantizeDynamic.model_validate(keys), static(tmp_path, **keys)):
        with pytest.raises(StageError, match=says):
            stage.run(source, tmp_path / "out")


def test_nodes_without_a_name_are_quantized_too(tmp_path: Path) -> None:
    source = chain(tmp_path / "m.onnx", ("", "", ""))
    assert onnx_file.facts(QuantizeDynamic().run(source, tmp_path / "d").path).nodes["MatMulInteger"] == 3
    assert in_float(static(tmp_path).run(source, tmp_path / "s")) == set()


def test_limits_are_answered_by_a_choice_and_not_by_the_stage(tmp_path: Path) -> None:
    source = chain(tmp_path / "m.onnx")
    for stage in (QuantizeDynamic(max_drop=0.1), static(tmp_path, min_cosine=0.9)):
        with pytest.raises(StageError, match="max_drop and min_cosine need measurements"):
            stage.run(source, tmp_path / "out")
    with pytest.raises(ValueError, match="max_drop and min_cosine are mutually exclusive, and both are set"):
        QuantizeDynamic(max_drop=0.1, min_cosine=0.9)


def weights(made: Artifact) -> list[onnx.TensorProto]:
    return [t for t in onnx.load(made.path).graph.initializer if t.name.endswith("_quantized")]


@pytest.mark.parametrize(("weight_type", "wanted"), [("int8", TensorProto.INT8), ("uint8", TensorProto.UINT8)])
def test_weights_have_the_type_that_was_asked_for(weight_type: str, wanted: int, tmp_path: Path) -> None:
    source = chain(tmp_path / "m.onnx")
    for stage in (QuantizeDynamic(weight_type=weight_type), static(tmp_path, weight_type=weight_type)):
        made = stage.run(source, tmp_path / stage.stage)
        assert {tensor.data_type for tensor in weights(made)} == {wanted}


def test_per_channel_and_reduced_range_are_in_the_file(tmp_path: Path) -> None:
    source = chain(tmp_path / "m.onnx")

    def scale_sizes(made: Artifact) -> set[int]:
        tensors = onnx.load(made.path).graph.initializer
        return {int(np.prod(t.dims)) for t in tensors if t.name.startswith("w") and t.name.endswith("_scale")}

    assert scale_sizes(QuantizeDynamic().run(source, tmp_path / "a")) == {8}
    assert scale_sizes(QuantizeDynamic(per_channel=False).run(source, tmp_path / "b")) == {1}
    assert scale_sizes(static(tmp_path, per_channel=False).run(source, tmp_path / "c")) == {1}
    largest = [
        max(int(np.abs(numpy_helper.to_array(t)).max()) for t in weights(made))
        for made in (
            static(tmp_path, reduce_range=False).run(source, tmp_path / "d"),
            static(tmp_path, reduce_range=True).run(source, tmp_path / "e"),
        )
    ]
    assert largest == [127, 64]


def test_the_qoperator_format_has_integer_operators(tmp_path: Path) -> None:
    made = static(tmp_path, format="qoperator").run(chain(tmp_path / "m.onnx"), tmp_path / "out")
    assert onnx_file.facts(made.path).nodes["QLinearMatMul"] == 3


def attention(path: Path) -> Artifact:
    """Write a model whose mask puts -infinity into the product of two activations."""
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.standard_normal((8, 8)).astype(np.float32), "w")
    last = numpy_helper.from_array(rng.standard_normal((8, 8)).astype(np.float32), "v")
    mask = numpy_helper.from_array(np.array([[0] * 4 + [-np.inf] * 4], np.float32), "mask")
    shape = numpy_helper.from_array(np.array([-1, 8, 1], np.int64), "shape")
    flat = numpy_helper.from_array(np.array([-1, 8], np.int64), "flat")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["q"], name="project"),
        helper.make_node("Reshape", ["q", "shape"], ["column"], name="column"),
        helper.make_node("Transpose", ["column"], ["row"], perm=[0, 2, 1], name="row"),
        helper.make_node("MatMul", ["column", "row"], ["scores"], name="scores"),
        helper.make_node("Add", ["scores", "mask"], ["masked"], name="mask"),
        helper.make_node("Softmax", ["masked"], ["p"], axis=-1, name="softmax"),
        helper.make_node("MatMul", ["p", "column"], ["mixed"], name="mix"),
        helper.make_node("Reshape", ["mixed", "flat"], ["z"], name="flat"),
        helper.make_node("MatMul", ["z", "v"], ["y"], name="out"),
    ]
    return write(path, nodes, [weight, last, mask, shape, flat])


def test_a_mask_of_infinity_has_no_range_and_needs_none(tmp_path: Path) -> None:
    source = attention(tmp_path / "m.onnx")
    assert has_attention(onnx.load(source.path).graph)
    made = static(tmp_path).run(source, tmp_path / "out")
    assert in_float(made) == {"scores", "mix"}
    assert made.notes[1] == (
        "stays in float: 2 MatMul of two activations (both inputs are activations; the attention mask contains -inf, so there is no quantization range)"
    )
    feed = {"x": np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)}
    with open_runner(source) as right, open_runner(made) as found:
        np.testing.assert_allclose(found.infer(feed)["y"], right.infer(feed)["y"], atol=1.0)


def test_dynamic_int8_for_tensorrt_is_refused_with_the_reason() -> None:
    with pytest.raises(
        ValueError, match=r"TensorRT has no dynamic INT8: it does not support DynamicQuantizeLinear and MatMulInteger"
    ):
        QuantizeDynamic(target="tensorrt")


@pytest.mark.parametrize(
    "keys", [{"activation_type": "uint8"}, {"weight_type": "uint8"}, {"format": "qoperator"}, {"reduce_range": True}]
)
def test_other_types_than_tensorrts_are_refused(keys: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"target tensorrt supports only symmetric int8 in Q/DQ format"):
        QuantizeStatic.model_validate({"target": "tensorrt", **keys})


def test_a_full_disk_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("onnxruntime.quantization.shape_inference.quant_pre_process", full)
    with pytest.raises(
        StageError, match=r"^quantize-dynamic: no space is left on the disk of the output; .* Free space there"
    ):
        QuantizeDynamic().run(chain(tmp_path / "m.onnx"), tmp_path / "out")
