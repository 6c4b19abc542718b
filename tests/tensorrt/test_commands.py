"""`optkit build-engine`, and what `inspect`, `doctor`, `package` and recipes make of an engine, on a machine without a GPU."""

import json
from pathlib import Path

import pytest
import yaml

from optkit.artifact import Artifact, read_passport
from optkit.stages import ExportOnnx
from tests.support import zoo
from tests.support.project import ONNX, CommandLine, carry_out, files_below, statuses, write_project
from tests.support.zoo import Make

RTX = ("--runtime", "tensorrt-rtx")
DIM = ("--dim", "batch=1:4:16")


@pytest.fixture
def no_gpu() -> None:
    """Skip where a GPU is: engines are proven there, and nothing is left unproven."""
    from optkit.tensorrt.worker.runtimes import find_gpu

    if find_gpu()[0]:
        pytest.skip("a GPU is here")


@pytest.mark.usefixtures("rtx", "no_gpu")
def test_an_engine_comes_with_its_passport_and_what_is_not_proven(
    linear: Artifact, tmp_path: Path, optkit: CommandLine
) -> None:
    plan = tmp_path / "linear.plan"
    found = optkit("build-engine", linear.path, *DIM, *RTX, "-o", plan)
    assert found.code == 0, found.err
    assert "built by TensorRT-RTX" in found.out
    assert (
        "not tested: parity, accuracy and the precision of layers: an engine needs a GPU: no NVIDIA driver" in found.out
    )
    passport = read_passport(plan)
    assert passport
    assert passport.stage == "build-tensorrt"
    assert passport.unproven
    assert passport.artifact.engine
    assert "no output of the engine was compared" in passport.artifact.engine.unproven[0]
    assert passport.seconds

    again = optkit("build-engine", linear.path, *DIM, *RTX, "-o", plan)
    assert again.code == 2
    assert "exists already. Give --force" in again.err

    shown = optkit("inspect", plan)
    for text in (
        "engine  fp32, strongly typed, built by TensorRT-RTX",
        "profile 0: input 1x4,4x4,16x4",
        "here    an engine needs a GPU",
    ):
        assert text in shown.out

    checked = optkit("doctor", plan, "--triton", "25.11", "--gpu", "A10")
    assert "Triton 25.11 has TensorRT 10.13.3.9" in checked.out
    assert "this is TensorRT 10.13.3.9 on sm_86: rebuild with --runtime tensorrt on that GPU" in checked.out
    assert "https://github.com/triton-inference-server" in checked.out
    document = json.loads(optkit("doctor", plan, "--json").out)
    assert document["engines"][0]["here"].startswith("an engine needs a GPU")

    for command in (("bench", plan), ("bench", plan, "--device", "cuda"), ("check", linear.path, plan)):
        refused = optkit(*command, *(DIM if command[0] == "check" else ()))
        assert refused.code == 2
        assert "an engine needs a GPU" in refused.err

    packaged = optkit("package", "triton", plan, "-o", tmp_path / "repository")
    assert packaged.code == 2
    assert "is an engine of TensorRT-RTX; Triton's backend loads only engines of TensorRT" in packaged.err
    assert not (tmp_path / "repository").exists() or not files_below(tmp_path / "repository")


@pytest.mark.usefixtures("rtx")
def test_an_engine_straight_from_a_model(tmp_path: Path, optkit: CommandLine) -> None:
    plan = tmp_path / "conv.plan"
    found = optkit(
        "build-engine", f"{zoo.HERE}:conv", "--input", "input:float32[batch,1,6,6]", *DIM, *RTX, "-o", plan,
        "--precision", "int8", "--calibration", f"{zoo.HERE}:conv_feeds", "--json",
    )  # fmt: skip
    assert found.code == 0, found.err
    document = json.loads(found.out)
    assert document["artifact"]["engine"]["precision"] == "int8"
    assert any(note.startswith("quantize-static: ") for note in document["artifact"]["notes"])
    assert files_below(tmp_path) == {"conv.plan", "conv.plan.passport.json"}


@pytest.mark.usefixtures("rtx")
def test_profiles_give_the_ranges_that_a_file_cannot_state(
    linear: Artifact, tmp_path: Path, optkit: CommandLine
) -> None:
    plan = tmp_path / "x.plan"
    found = optkit(
        "build-engine",
        linear.path,
        *RTX,
        "-o",
        plan,
        "--profile",
        "input=1x4,2x4,4x4",
        "--profile",
        "input=8x4,16x4,64x4",
    )
    assert found.code == 0, found.err
    passport = read_passport(plan)
    assert passport
    assert passport.artifact.dims["batch"].max == 64
    assert len(passport.artifact.ranges) == 2


WRONG = {
    "grammar": (("--profile", "1x4,2x4,4x4"), "--profile 1x4,2x4,4x4: expected name=value"),
    "unordered": (("--profile", "input=4x4,2x4,1x4"), "--profile input: 4x4,2x4,1x4: axis 0 has 4, 2, 1; expected 1 <= min <= opt <= max"),
    "unknown input": (("--profile", "image=1x4,2x4,4x4"), "profile 0: no input is named 'image'; the model takes input"),
    "rank": (("--profile", "input=1x1x4,2x1x4,4x1x4"), "has rank 3; the model takes float32[batch,4]"),
    "no range": ((), "no range is given for batch. Add --dim batch=1:8:64"),
    "gpu": ((*DIM, "--gpu", "Voodoo"), "--gpu: 'Voodoo' is not a known GPU"),
    "runtime": ((*DIM, "--runtime", "trt"), "'trt' is not one of 'auto', 'tensorrt', 'tensorrt-rtx'"),
    "precision": ((*DIM, "--precision", "fp8"), "'fp8' is not one of 'fp32', 'fp16', 'int8', 'int8+fp16'"),
    "no data": ((*DIM, "--precision", "int8"), "linear.onnx is fp32; expected calibration data, because ranges are never guessed. Give --calibration DATA."),
    "opset": ((*DIM, "--precision", "int8+fp16", "--calibration", f"{zoo.HERE}:linear_feeds"), "has opset 17, whose Q/DQ nodes take FP32 only"),
    "input": ((*DIM, "--input", "x:float32[4]"), "--input: applies only to a model source, but"),
    "workspace": ((*DIM, "--workspace-mib", "0"), "--workspace-mib: Input should be greater than or equal to 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_option_is_2_and_leaves_nothing(
    case: str, linear: Artifact, tmp_path: Path, optkit: CommandLine
) -> None:
    arguments, message = WRONG[case]
    before = files_below(tmp_path)
    found = optkit("build-engine", linear.path, "-o", tmp_path / "x.plan", *arguments)
    assert found.code == 2
    assert message in found.err
    assert found.out == ""
    assert files_below(tmp_path) == before


def test_garbage_is_2_and_leaves_nothing(tmp_path: Path, optkit: CommandLine) -> None:
    (tmp_path / "garbage.onnx").write_bytes(bytes(100))
    found = optkit("build-engine", tmp_path / "garbage.onnx", "-o", tmp_path / "x.plan")
    assert found.code == 2
    assert "garbage.onnx: cannot be read as an ONNX model" in found.err
    assert files_below(tmp_path) == {"garbage.onnx"}


@pytest.mark.usefixtures("rtx", "no_gpu")
def test_a_share_of_layers_that_cannot_be_seen_is_refused_before_the_build(
    linear: Artifact, tmp_path: Path, optkit: CommandLine
) -> None:
    found = optkit("build-engine", linear.path, *DIM, *RTX, "-o", tmp_path / "x.plan", "--require", "fp16=0.9")
    assert found.code == 2
    assert "require: the engine inspector needs a GPU: no NVIDIA driver" in found.err


def test_a_release_of_triton_that_nobody_knows_is_told(optkit: CommandLine) -> None:
    found = optkit("doctor", "--triton", "19.01")
    assert found.code == 2
    assert "--triton 19.01: unknown Triton release; optkit knows 24.05" in found.err


def test_only_engines_are_asked_whether_they_load(make: Make, tmp_path: Path, optkit: CommandLine) -> None:
    made = make("linear", ExportOnnx(exporter="torchscript", opset=17))
    found = optkit("doctor", made.path)
    assert found.code == 2
    assert "expected an engine made by optkit build-engine" in found.err


ENGINE = {
    "stage": "build-tensorrt",
    "after": "export-onnx",
    "precision": "fp16",
    "optional": True,
    "runtime": "tensorrt-rtx",
}


@pytest.mark.usefixtures("rtx", "no_gpu")
def test_a_recipe_builds_an_engine_and_says_that_it_is_not_proven(tmp_path: Path) -> None:
    recipe = write_project(tmp_path, steps=[ONNX, ENGINE])
    record = carry_out(recipe)
    assert statuses(record) == {"source": "built", "export-onnx": "built", "build-tensorrt": "built"}
    step = record.steps[-1]
    assert step.unproven
    assert step.passed
    assert record.exit_code == 0, record.failures
    assert record.bench
    assert {m.artifact for m in record.bench.measurements} == {"source", "export-onnx"}
    assert record.winner
    assert record.winner.artifact == "export-onnx"
    assert statuses(carry_out(recipe))["build-tensorrt"] == "reused"


def test_a_recipe_skips_the_step_with_its_reason_where_no_tensorrt_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optkit import deps

    there = deps.installed
    monkeypatch.setattr(deps, "installed", lambda module: "tensorrt" not in module and there(module))
    record = carry_out(write_project(tmp_path, steps=[ONNX, ENGINE]))
    assert statuses(record)["build-tensorrt"] == "skipped"
    assert record.steps[-1].reason == "tensorrt_rtx is not installed. Run: pip install 'optkit[tensorrt-rtx]'"
    assert record.exit_code == 0


def test_the_recipe_names_the_interpreter_that_has_tensorrt(tmp_path: Path) -> None:
    step = ENGINE | {"optional": False}
    recipe = write_project(tmp_path, steps=[ONNX, step], tensorrt={"python": "other/bin/python"})
    record = carry_out(recipe, only="build-tensorrt")
    assert statuses(record)["build-tensorrt"] == "failed"
    assert record.steps[-1].reason
    assert f"{tmp_path}/other/bin/python: cannot be started" in record.steps[-1].reason
    assert yaml.safe_load(recipe.read_text())["tensorrt"]
