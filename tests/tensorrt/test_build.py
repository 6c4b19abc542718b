"""Real engines, built ahead of time by TensorRT-RTX on any machine, and all that can be wrong with a build."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from optkit import onnx_file
from optkit.artifact import Artifact, Format, Precision
from optkit.artifact.engine import ShapeRange
from optkit.artifact.tensors import DimRange
from optkit.errors import StageError
from optkit.stages import BuildTensorRt, ConvertFp16, ExportOnnx, QuantizeDynamic, QuantizeStatic
from tests.support import zoo
from tests.support.project import files_below
from tests.support.zoo import Make

pytestmark = pytest.mark.usefixtures("rtx")

RTX = {"runtime": "tensorrt-rtx"}
SYMMETRIC = QuantizeStatic(calibration=f"{zoo.HERE}:conv_feeds", target="tensorrt")


def save_onnx(path: Path, nodes: list[onnx.NodeProto], domain: str | None = None) -> Artifact:
    """Write a graph from x to y, float32[batch,4], batch 1 to 16."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy")
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=opsets, ir_version=8), path)
    return onnx_file.describe(path, zoo.BATCH)


def test_an_engine_says_what_built_it_for_what_and_with_which_profiles(linear: Artifact, tmp_path: Path) -> None:
    engine = BuildTensorRt(**RTX, workspace_mib=512, optimization_level=2).run(linear, tmp_path / "out")

    assert engine.format is Format.TENSORRT
    assert engine.path.stat().st_size > 1000
    facts = engine.engine
    assert facts is not None
    assert (facts.runtime, facts.precision, facts.typed) == ("tensorrt-rtx", "fp32", True)
    assert facts.targets == ("sm80", "sm86", "sm89", "sm120", "sm121")
    assert facts.profiles == ({"input": ShapeRange(min=(1, 4), opt=(4, 4), max=(16, 4))},)
    assert facts.inputs == linear.inputs
    assert facts.outputs == linear.outputs
    assert facts.onnx_sha256 == engine.parent_sha256 == linear.sha256
    assert facts.settings["workspace_mib"] == 512
    assert facts.settings["optimization_level"] == 2
    assert engine.dims == linear.dims
    assert files_below(tmp_path / "out") == {"model.plan"}


@pytest.mark.parametrize(
    ("chain", "precision", "text"),
    [
        ((ConvertFp16(),), Precision.FP16, "fp16"),
        ((SYMMETRIC,), Precision.INT8, "int8"),
        ((SYMMETRIC, ConvertFp16()), Precision.INT8, "int8+fp16"),
    ],
)
def test_the_precision_is_that_of_the_file(
    chain: tuple[Any, ...], precision: Precision, text: str, make: Make, tmp_path: Path
) -> None:
    source = make("conv", ExportOnnx(exporter="torchscript", opset=20), *chain)  # FP16 in Q/DQ needs 19
    engine = BuildTensorRt(**RTX, precision=text).run(source, tmp_path)
    assert engine.precision is precision
    assert engine.engine
    assert engine.engine.precision == text


def test_several_profiles_are_kept_and_their_hull_is_the_contract(linear: Artifact, tmp_path: Path) -> None:
    profiles = ({"input": "1x4,2x4,4x4"}, {"input": "8x4,8x4,32x4"})
    engine = BuildTensorRt(**RTX, profiles=profiles).run(linear, tmp_path)
    assert engine.dims == {"batch": DimRange(min=1, opt=2, max=32)}
    assert engine.ranges == (
        {"batch": DimRange(min=1, opt=2, max=4)},
        {"batch": DimRange(min=8, opt=8, max=32)},
    )


def test_targets_may_be_named_by_their_gpu(conv: Artifact, tmp_path: Path) -> None:
    engine = BuildTensorRt(**RTX, gpu=("A10", "NVIDIA L4", "sm86", "rtx 4090")).run(conv, tmp_path)
    assert engine.engine
    assert engine.engine.targets == ("sm86", "sm89")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown input": ({"profiles": ({"image": "1x4"},)}, "profile 0: no input is named 'image'; the model takes input"),
    "input left out": ({"profiles": ({},)}, "profile 0: input 'input': has dynamic dimensions"),
    "rank": ({"profiles": ({"input": "1x1x4"},)}, r"input 'input': .* has rank 3; the model takes float32\[batch,4\]"),
    "fixed dimension": ({"profiles": ({"input": "1x5"},)}, r"has \(5, 5, 5\) for axis 1; the model fixes it at 4"),
    "precision": ({"precision": "fp16"}, r"linear.onnx is fp32; an engine has the precision of its ONNX file"),
    "hopper": ({"gpu": ("H100",)}, r"--gpu sm90: TensorRT-RTX .* builds for sm75, sm80, sm86, sm89, sm120, sm121"),
    "turing": (
        {"gpu": ("T4",)},
        r"TensorRT-RTX 1\..* could not build the engine: .*FP32 GEMM is not supported.*use --precision fp16",
    ),
    "refit": ({"refit": True}, r"tensorrt-rtx .* does not support these options: --refit: needs a GPU: no NVIDIA"),
    "strip": ({"strip": True}, "--strip: needs a GPU"),
    "hardware": ({"hardware_compatible": "ampere-plus"}, "--hardware-compatible: its engines run on every target"),
    "version": ({"version_compatible": True}, "--version-compatible: such an engine needs the lean runtime"),
    "timing cache": ({"timing_cache": "t.cache"}, "--timing-cache: its builds measure nothing"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_had_is_refused_and_leaves_nothing(case: str, linear: Artifact, tmp_path: Path) -> None:
    settings, message = WRONG[case]
    with pytest.raises(StageError, match=message):
        BuildTensorRt(**RTX, **settings).run(linear, tmp_path / "out")
    assert files_below(tmp_path / "out") == set()


def test_every_operator_that_tensorrt_lacks_is_told_at_once(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mystery", ["x"], ["a"], name="/encoder/layer.0/Mystery", domain="my.domain"),
        helper.make_node("Relu", ["a"], ["b"], name="/encoder/Relu"),
        helper.make_node("Det", ["b"], ["c"], name="node_det"),
        helper.make_node("Riddle", ["b"], ["y"], domain="my.domain"),
    ]
    scopes = nodes[2].metadata_props.add()
    scopes.key, scopes.value = "pkg.torch.onnx.name_scopes", "['', 'head', 'head.volume', 'linalg_det']"
    source = save_onnx(tmp_path / "odd.onnx", nodes, domain="my.domain")

    with pytest.raises(StageError) as raised:
        BuildTensorRt(**RTX).run(source, tmp_path / "out")

    first, *lines = str(raised.value).splitlines()
    assert first.endswith("does not support 3 of its nodes")
    assert "node /encoder/layer.0/Mystery, operator Mystery in module 'encoder.layer.0'" in lines[0]
    assert "needs a plugin" in lines[0]
    assert lines[1] == (
        "  - node node_det, operator Det in module 'head.volume': move it out of the model, or write out the formula for small fixed sizes"
    )
    assert "node (without a name), operator Riddle" in lines[2]
    assert len(lines) == 3
    assert files_below(tmp_path / "out") == set()


def test_a_dynamically_quantized_model_is_refused_before_tensorrt_sees_it(make: Make, tmp_path: Path) -> None:
    source = make("linear", ExportOnnx(exporter="torchscript", opset=17), QuantizeDynamic())
    with pytest.raises(
        StageError, match=r"is quantized dynamically \(DynamicQuantizeLinear, MatMulInteger\).*--target tensorrt"
    ):
        BuildTensorRt(**RTX).run(source, tmp_path / "out")


def test_int8_with_zero_points_is_refused_with_the_way_to_mend_it(make: Make, tmp_path: Path) -> None:
    source = make(
        "conv", ExportOnnx(exporter="torchscript", opset=17), QuantizeStatic(calibration=f"{zoo.HERE}:conv_feeds")
    )
    with pytest.raises(StageError) as raised:
        BuildTensorRt(**RTX).run(source, tmp_path / "out")
    assert "--target tensorrt" in str(raised.value)


def test_a_file_that_parses_as_nothing_is_refused(
    linear: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """optkit's own reader refuses garbage first; TensorRT answers True to it, so the worker looks too."""
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(bytes(100))
    monkeypatch.setattr("optkit.stages.build_tensorrt.TensorRtProcess", _with({"onnx": str(garbage)}))
    with pytest.raises(StageError, match="TensorRT finds no output in the model, so the file is damaged or empty"):
        BuildTensorRt(**RTX).run(linear, tmp_path / "out")


OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "other inputs": ({"inputs": [{"name": "image", "dtype": "float32", "shape": [-1, 4]}]}, "TensorRT sees the inputs input; declared are image"),
    "other outputs": ({"outputs": ["logits"]}, "TensorRT sees the outputs output; declared are logits"),
    "other dtype": ({"inputs": [{"name": "input", "dtype": "float16", "shape": [-1, 4]}]}, r"input 'input': TensorRT sees float32\[-1, 4\]; declared is float16"),
    "other rank": ({"inputs": [{"name": "input", "dtype": "float32", "shape": [-1, 4, 4]}]}, r"input 'input': TensorRT sees float32\[-1, 4\]; declared is float32\[-1, 4, 4\]"),
    "other name in a profile": ({"profiles": [{"zzz": [[1, 4], [4, 4], [8, 4]]}]}, "profile 0: no input is named 'zzz'"),
    "unordered profile": ({"profiles": [{"input": [[8, 4], [4, 4], [1, 4]]}]}, "profile 0: TensorRT refuses"),
    "full disk": ({"plan": "/dev/full"}, r"the engine of 0\.\d MB cannot be written \(No space left on device\)"),
    "missing file": ({"onnx": "/nowhere/model.onnx"}, "TensorRT cannot read the model"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHER)
def test_the_worker_trusts_nobody(case: str, linear: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own checks, on jobs that the stage would not write."""
    changed, message = OTHER[case]
    monkeypatch.setattr("optkit.stages.build_tensorrt.TensorRtProcess", _with(changed))
    with pytest.raises(StageError, match=message):
        BuildTensorRt(**RTX).run(linear, tmp_path / "out")


def _with(changed: dict[str, Any]) -> Any:
    """Return a process that gets another job than the stage wrote."""
    from optkit.tensorrt.process import TensorRtProcess

    class Misled(TensorRtProcess):
        def __init__(self, job: Mapping[str, Any], python: Path | None = None) -> None:
            super().__init__({**job, **changed}, python)

    return Misled
