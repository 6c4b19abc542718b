"""SmoothQuant: equal in float, more accurate in INT8 where a few channels are large, and refused where it cannot be."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from optkit.artifact import Artifact
from optkit.checks.parity import sqnr_db
from optkit.errors import FeedError, StageError
from optkit.pytorch.source import make_source
from optkit.quantization import smoothquant
from optkit.quantization.ort_quantizer import quantizing
from optkit.runners import open_runner
from optkit.stages import ExportOnnx, QuantizeDynamic, QuantizeStatic
from tests.support import zoo

FEEDS = f"{zoo.HERE}:block_feeds"


@pytest.fixture(params=[True, False], ids=["norm before", "norm after"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Artifact:
    """Return a transformer block whose LayerNorms feed products alone (before), or a residual too (after)."""
    return exported(tmp_path, before=request.param)


def exported(folder: Path, *, before: bool) -> Artifact:
    specs = zoo.specs("x:float32[batch,6,16]")
    module = make_source(f"{zoo.HERE}:block", folder, specs, zoo.BATCH, args={"before": before})
    return ExportOnnx(exporter="torchscript", opset=18).run(module, folder / "fp32")


def stage(**keys: object) -> QuantizeStatic:
    fixed = {
        "calibration": FEEDS,
        "activation_type": "uint8",
        "format": "qdq",
        "reduce_range": True,
    }
    return QuantizeStatic.model_validate(fixed | keys)


def answer(artifact: Artifact) -> np.ndarray:
    x = np.random.default_rng(5).standard_normal((8, 6, 16)).astype(np.float32)
    with open_runner(artifact) as runner:
        (found,) = runner.infer({"x": x}).values()
    return found


def test_int8_gains_where_few_channels_are_large(source: Artifact, tmp_path: Path) -> None:
    right = answer(source)
    plain = sqnr_db(right, answer(stage().run(source, tmp_path / "plain")))
    made = stage(smooth=0.75).run(source, tmp_path / "smooth")
    smooth = sqnr_db(right, answer(made))
    assert plain is not None
    assert smooth is not None
    assert smooth > plain + 2
    assert "smoothed by SmoothQuant, alpha 0.75" in made.notes


@pytest.mark.parametrize(("before", "divisions"), [(True, 2), (False, 4)])
def test_a_layer_norm_takes_the_division_where_products_alone_read_it(
    before: bool, divisions: int, tmp_path: Path
) -> None:
    source = exported(tmp_path, before=before)
    with quantizing(source, tmp_path) as prepared:
        path = stage(smooth=0.5).smoothed(prepared, source)
        graph = onnx.load(path).graph
        added = [node for node in graph.node if node.name.endswith(smoothquant.SMOOTH)]
        assert [node.op_type for node in added] == ["Mul"] * divisions
        names = {node.name for node in stage().nodes(graph)}
        assert not names & {node.name for node in added}


def test_a_copy_with_other_answers_is_refused(
    source: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smoothquant, "_divide", lambda *_: None)
    with pytest.raises(StageError, match=r"smooth: output .* of the smoothed model differs from the float one by"):
        stage(smooth=0.5).run(source, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def shared(folder: Path) -> Path:
    """Write `y = x @ W`, `z = relu(y) @ W`: one weight, two inputs, one of which is the model's."""
    weight = np.array([[1.0, -2.0], [0.5, 0.25]], np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], "first"),
        helper.make_node("Relu", ["y"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "w"], ["z"], "second"),
    ]
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 2]) for name in "xyrz"]
    graph = helper.make_graph(
        nodes, "g", value[:1], value[3:], [numpy_helper.from_array(weight, "w")], value_info=value[1:3]
    )
    path = folder / "shared.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_scales_are_those_of_the_paper_and_shared_weights_are_told_apart(tmp_path: Path) -> None:
    feeds = [{"x": np.array([[4.0, -1.0], [-2.0, 0.5]], np.float32)}]
    graph = onnx.load(smoothquant.smooth(shared(tmp_path), {"first", "second"}, feeds, 0.5)).graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    first = weights["first:smooth"] / [[1.0, -2.0], [0.5, 0.25]]
    # max|x| is 4 and 1, max|W| of the rows 2 and 0.5: s = sqrt(4 / 2) and sqrt(1 / 0.5), equal ones, which centre to 1
    assert first == pytest.approx(np.ones((2, 2)))
    second = weights["second:smooth"] / [[1.0, -2.0], [0.5, 0.25]]
    # relu(y) is at most 3.5 and 4.125: s1 / s2 = sqrt(3.5 / 2) / sqrt(4.125 / 0.5)
    assert second[0] / second[1] == pytest.approx(np.full(2, np.sqrt(3.5 / 2) / np.sqrt(4.125 / 0.5)), rel=1e-5)
    assert "w" not in weights


def test_only_what_is_selected_is_smoothed(tmp_path: Path) -> None:
    feeds = [{"x": np.array([[4.0, -1.0], [-2.0, 0.5]], np.float32)}]
    graph = onnx.load(smoothquant.smooth(shared(tmp_path), {"second"}, feeds, 0.5)).graph
    assert {tensor.name for tensor in graph.initializer} == {"w", "second:smooth", "r:smooth:scale"}


def test_what_cannot_be_smoothed_is_refused(tmp_path: Path) -> None:
    path = shared(tmp_path)
    with pytest.raises(StageError, match="smooth: no matrix product with weights"):
        smoothquant.smooth(path, {"relu"}, [], 0.5)
    with pytest.raises(FeedError, match="no sample; SmoothQuant needs at least one"):
        smoothquant.smooth(path, {"first"}, [], 0.5)
    with pytest.raises(FeedError, match="tensor 'x': is not finite"):
        smoothquant.smooth(path, {"first"}, [{"x": np.full((2, 2), np.nan, np.float32)}], 0.5)


def test_dynamic_int8_alone_has_nothing_to_smooth_with(source: Artifact, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="smooth: needs calibration data, and dynamic quantization uses none"):
        QuantizeDynamic(smooth=0.5).run(source, tmp_path / "out")
    with pytest.raises(StageError, match="no calibration data"):
        QuantizeStatic(smooth=0.5).run(source, tmp_path / "out")
