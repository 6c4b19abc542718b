"""What the stages that change the precision of an ONNX file refuse."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from optkit import onnx_file
from optkit.artifact import Artifact, Precision
from optkit.checks import check_parity
from optkit.data import Samples
from optkit.errors import FeedError, StageError
from optkit.runners import open_runner
from optkit.stages import ConvertFp16, ExportOnnx, QuantizeDynamic, QuantizeStatic
from tests.support import zoo
from tests.support.zoo import Make

ONNX = ExportOnnx(exporter="torchscript", opset=17)
STATIC = QuantizeStatic(calibration=f"{zoo.HERE}:linear_feeds")


def test_fp16_of_fp16_is_refused(make: Make, tmp_path: Path) -> None:
    half = make("linear", ONNX, ConvertFp16())
    with pytest.raises(StageError, match=r"^convert-fp16: model\.onnx is in FP16 already$"):
        ConvertFp16().run(half, tmp_path)


def test_a_model_without_weights_does_not_become_fp16(make: Make, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no weight became FP16: the model has no FP32 weight that can be cast"):
        ConvertFp16().run(make("softmax", ONNX), tmp_path)


def test_operators_kept_in_fp32_must_be_there(make: Make, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"keep_ops: the model has no Convolution node"):
        ConvertFp16(keep_ops=("Convolution",)).run(make("linear", ONNX), tmp_path)
    with pytest.raises(StageError, match=r"no weight became FP16"):
        ConvertFp16(keep_ops=("Gemm",)).run(make("linear", ONNX), tmp_path)


def test_inputs_and_outputs_of_an_fp16_file_stay_fp32(make: Make) -> None:
    half = make("linear", ONNX, ConvertFp16())
    facts = onnx_file.facts(half.path)
    assert facts.inputs == half.inputs
    assert facts.outputs[0].dtype == "float32"
    assert half.notes[0] == "100 % of the bytes of the weights are FP16"


def test_weights_beyond_fp16_are_noted(onnx_linear: Artifact, tmp_path: Path) -> None:
    model = onnx.load(onnx_linear.path)
    weight = next(t for t in model.graph.initializer if len(t.dims) == 2)
    weight.CopyFrom(numpy_helper.from_array(np.full((3, 4), 1e6, np.float32), weight.name))
    onnx.save(model, tmp_path / "big.onnx")
    half = ConvertFp16().run(onnx_file.describe(tmp_path / "big.onnx", zoo.BATCH), tmp_path / "out")
    assert half.notes[1] == f"1 weights have values beyond FP16, clipped to 65504: {weight.name}"


def masked(path: Path, value: float, constant: bool) -> Artifact:
    """Write an attention without its products: scores plus a mask, whose large number is a weight or a Constant node."""
    info, tensor = helper.make_tensor_value_info, numpy_helper.from_array(np.full((), value, np.float32), "large")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["s"], name="scores"),
        helper.make_node("Cast", ["attention_mask"], ["k"], to=TensorProto.BOOL, name="keep"),
        helper.make_node("Where", ["k", "zero", "large"], ["m"], name="mask"),
        helper.make_node("Add", ["s", "m"], ["a"], name="add"),
        helper.make_node("Softmax", ["a"], ["y"], name="softmax"),
    ]
    weights = [
        numpy_helper.from_array(np.full((4, 6), 0.5, np.float32), "w"),
        numpy_helper.from_array(np.zeros((), np.float32), "zero"),
    ]
    if constant:
        nodes.insert(0, helper.make_node("Constant", [], ["large"], value=tensor, name="constant"))
    else:
        weights.append(tensor)
    inputs = [info("x", TensorProto.FLOAT, ["batch", 4]), info("attention_mask", TensorProto.INT64, ["batch", 6])]
    graph = helper.make_graph(nodes, "g", inputs, [info("y", TensorProto.FLOAT, ["batch", 6])], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return onnx_file.describe(path, zoo.BATCH)


@pytest.mark.parametrize("constant", [False, True], ids=["weight", "node"])
@pytest.mark.parametrize("value", [-1e9, float(np.finfo(np.float32).min), 1e6])
def test_constants_beyond_fp16_are_noted_wherever_the_exporter_put_them(
    value: float, constant: bool, tmp_path: Path
) -> None:
    made = ConvertFp16().run(masked(tmp_path / "m.onnx", value, constant), tmp_path / "out")
    assert made.notes[1] == "1 weights have values beyond FP16, clipped to 65504: large"


def test_what_overflows_on_the_samples_stays_in_fp32_and_is_named(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("Mul", ["h", "h"], ["q"], name="square"),
        helper.make_node("ReduceMean", ["q"], ["p"], name="power", axes=[1], keepdims=1),
        helper.make_node("Sqrt", ["p"], ["r"], name="root"),
        helper.make_node("Div", ["h", "r"], ["n"], name="normal"),
        helper.make_node("MatMul", ["n", "v"], ["y"], name="last"),
    ]
    weights = [numpy_helper.from_array(np.full(s, 0.5, np.float32), n) for n, s in (("w", (4, 64)), ("v", (64, 3)))]
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, ["batch", 4])], [info("y", TensorProto.FLOAT, ["batch", 3])], weights
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    for i in range(4):
        np.savez(tmp_path / f"{i}.npz", x=np.full((4, 4), 400, np.float32))
    source = onnx_file.describe(tmp_path / "m.onnx", zoo.BATCH)
    feeds = Samples.of(str(tmp_path), source.inputs, source.dims).real
    made = ConvertFp16().with_feeds(feeds).run(source, tmp_path / "out")
    assert made.notes[-1] == "stays in FP32, because it is beyond FP16 on the samples: square, power, root"
    x = np.full((2, 4), 400, np.float32)
    with open_runner(made) as half, open_runner(source) as full:
        np.testing.assert_allclose(half.infer({"x": x})["y"], full.infer({"x": x})["y"], rtol=1e-2)
    without = ConvertFp16().run(source, tmp_path / "without")
    assert not any("stays in FP32" in note for note in without.notes)


def test_fully_masked_rows_are_probed_in_fp16(tmp_path: Path) -> None:
    source = masked(tmp_path / "m.onnx", float(np.finfo(np.float32).min), constant=False)
    made = ConvertFp16().run(source, tmp_path / "out")
    model = onnx.load(made.path)
    large = next(tensor for tensor in model.graph.initializer if tensor.name == "large")
    large.CopyFrom(numpy_helper.from_array(np.full((), -np.inf, np.float16), "large"))  # as another converter writes it
    onnx.save(model, tmp_path / "inf.onnx")
    wrong = made.model_copy(update={"path": tmp_path / "inf.onnx"})
    samples = Samples(source.inputs, source.dims)
    with open_runner(source) as reference, open_runner(made) as right, open_runner(wrong) as bad:
        assert check_parity(reference, right, samples, source.dims).passed
        failure = check_parity(reference, bad, samples, source.dims).failure
    assert failure is not None
    assert "with every mask False: " in failure


def with_fp32_nodes(path: Path) -> Artifact:
    """Write a model in which Max and Min, which stay in FP32, read one tensor in FP16 and one weight that only they read."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "weight"], ["h"], name="product"),
            helper.make_node("Max", ["h", "limit"], ["high"], name="max"),
            helper.make_node("Min", ["h", "limit"], ["low"], name="min"),
            helper.make_node("Add", ["high", "low"], ["y"], name="sum"),
        ],
        "g",
        [info("x", TensorProto.FLOAT, ["batch", 4])],
        [info("y", TensorProto.FLOAT, ["batch", 512])],
        [
            numpy_helper.from_array(np.full((4, 512), 0.5, np.float32), "weight"),
            numpy_helper.from_array(np.full(512, 3, np.float32), "limit"),
        ],
        value_info=[info("limit", TensorProto.FLOAT, [512])],  # as dynamo states it
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return onnx_file.describe(path, zoo.BATCH)


def test_a_weight_that_only_fp32_nodes_read_stays_in_fp32(tmp_path: Path) -> None:
    made = ConvertFp16().run(with_fp32_nodes(tmp_path / "m.onnx"), tmp_path / "out")
    types = {tensor.name: tensor.data_type for tensor in onnx.load(made.path).graph.initializer}
    assert types == {"weight": TensorProto.FLOAT16, "limit": TensorProto.FLOAT}
    assert made.notes == ("67 % of the bytes of the weights are FP16",)


def test_a_tensor_that_two_fp32_nodes_read_is_cast_back_once(tmp_path: Path) -> None:
    source = with_fp32_nodes(tmp_path / "m.onnx")
    made = ConvertFp16().run(source, tmp_path / "out")
    written = [name for node in onnx.load(made.path).graph.node for name in node.output]
    assert len(written) == len(set(written))
    with open_runner(made) as runner:
        np.testing.assert_allclose(runner.infer({"x": np.ones((2, 4), np.float32)})["y"], 5)


@pytest.mark.parametrize("stage", [QuantizeDynamic(), STATIC], ids=lambda stage: stage.stage)
def test_only_fp32_is_quantized(stage: QuantizeDynamic | QuantizeStatic, make: Make, tmp_path: Path) -> None:
    for before in (ConvertFp16(), QuantizeDynamic()):
        source = make("linear", ONNX, before)
        message = (
            rf"^{stage.stage}: model\.onnx is {source.precision}; expected an FP32 model\. Quantize before casting"
        )
        with pytest.raises(StageError, match=message):
            stage.run(source, tmp_path)


def test_fp16_on_top_of_int8_stays_int8(make: Make) -> None:
    assert make("conv", ONNX, QuantizeStatic(calibration=f"{zoo.HERE}:conv_feeds")).precision is Precision.INT8


def test_dynamic_quantization_with_nothing_to_quantize_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(
        StageError,
        match=r"nothing would become INT8: the operators to quantize are MatMul, Gemm, Gather, and the model has none that can be quantized",
    ):
        QuantizeDynamic().run(make("conv", ONNX), tmp_path)


def test_static_quantization_with_nothing_to_quantize_is_refused(make: Make, tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text("import numpy as np\n\nfeeds = [{'x': np.zeros((2, 5), np.float32)}]\n")
    with pytest.raises(StageError, match=r"^quantize-static: nothing would become INT8: the operators to quantize "):
        QuantizeStatic(calibration=f"{tmp_path}/data.py:feeds").run(make("softmax", ONNX), tmp_path / "out")


def test_what_stays_in_float_is_noted(make: Make, tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "weight")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["h"]), helper.make_node("MatMul", ["h", "x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 4])],
        [weight],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    made = QuantizeDynamic().run(onnx_file.describe(path, {}), tmp_path / "out")
    assert made.notes == (
        "1 matrix products in INT8, activations quantized at each run",
        "stays in float: 1 MatMul of two activations (both inputs are activations; the attention mask contains -inf, so there is no quantization range)",
    )


def test_ranges_are_never_guessed(make: Make, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"^quantize-static: no calibration data: ranges of activations are never gue"):
        QuantizeStatic().run(make("linear", ONNX), tmp_path)


@pytest.mark.parametrize("name", ["conv_feeds", "linear", "nothing"])
def test_wrong_calibration_data_is_refused(name: str, make: Make, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=rf"zoo\.py.*{name}") as caught:
        QuantizeStatic(calibration=f"{zoo.HERE}:{name}").run(make("linear", ONNX), tmp_path)
    assert type(caught.value).__module__ == "optkit.errors"


def test_an_activation_that_overflows_is_named(make: Make, tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text("import numpy as np\n\nfeeds = [{'input': np.full((2, 4), 3e38, np.float32)}]\n")
    with pytest.raises(FeedError, match=r"sample 0: tensor '\w+' is not finite; a range needs finite numbers"):
        QuantizeStatic(calibration=f"{tmp_path}/data.py:feeds").run(make("linear", ONNX), tmp_path / "out")


def test_types_are_those_asked_for(make: Make) -> None:
    data = f"{zoo.HERE}:conv_feeds"
    for activation_type, wanted in (("uint8", TensorProto.UINT8), ("int8", TensorProto.INT8)):
        made = make("conv", ONNX, QuantizeStatic(calibration=data, activation_type=activation_type))
        model = onnx.load(made.path)
        types = {t.data_type for t in model.graph.initializer if "zero_point" in t.name and "weight" not in t.name}
        assert wanted in types
        assert f"{activation_type} activations" in made.notes[0]


@pytest.mark.parametrize("percentile", [50, 100.5, 0])
def test_a_percentile_out_of_range_is_refused(percentile: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        QuantizeStatic(percentile=percentile)
