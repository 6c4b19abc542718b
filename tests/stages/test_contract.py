"""What every stage keeps, whatever it does; a new stage joins by a line in CASES."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from optkit import deps, onnx_file
from optkit.artifact import Artifact, Format, Passport, Precision, read_passport
from optkit.artifact.tensors import corners
from optkit.errors import StageError
from optkit.runners import Device, open_runner, why_not_runnable
from optkit.stages import (
    BuildTensorRt,
    CompileAoti,
    ConvertFp16,
    ExportOnnx,
    ExportProgram,
    ExportTorchScript,
    OptimizeOnnx,
    QuantizeDynamic,
    QuantizeStatic,
    QuantizeTorch,
    Stage,
)
from tests.support import zoo
from tests.support.needs import NARROW, need
from tests.support.zoo import Make

ONNX = ExportOnnx(exporter="torchscript", opset=17)
LINEAR_DATA = f"{zoo.HERE}:linear_feeds"
CONV_DATA = f"{zoo.HERE}:conv_feeds"


@dataclasses.dataclass(frozen=True)
class Case:
    """A stage, the chain before it, a model to run it on, and how far its answers may be from the closed form."""

    stage: Stage
    sample: str
    precision: Precision
    before: tuple[Stage, ...] = ()
    atol: float = 1e-5

    def __str__(self) -> str:
        options = [
            str(v)
            for k, v in self.stage.model_dump(exclude_defaults=True).items()
            if k in ("exporter", "method", "mode", "activation_type", "weight_type", "format", "target")
        ]
        return "-".join([self.stage.stage, *options, self.sample])


CASES = [
    Case(ExportTorchScript(), "linear", Precision.FP32),
    Case(ExportTorchScript(method="script"), "named", Precision.FP32),
    Case(ExportTorchScript(method="trace"), "two", Precision.FP32),
    Case(ExportProgram(), "two", Precision.FP32),
    Case(ExportProgram(), "named", Precision.FP32),
    Case(ExportProgram(), "optional", Precision.FP32),
    Case(ExportTorchScript(), "optional", Precision.FP32),
    Case(ExportOnnx(exporter="dynamo"), "optional", Precision.FP32),
    Case(ExportOnnx(exporter="torchscript", opset=17), "optional", Precision.FP32),
    Case(OptimizeOnnx(), "two", Precision.FP32, (ONNX,)),
    Case(OptimizeOnnx(), "conv", Precision.FP32, (ONNX,)),
    Case(ExportOnnx(exporter="torchscript", opset=17), "two", Precision.FP32),
    Case(ExportOnnx(exporter="torchscript", opset=20), "dynamic_length", Precision.FP32),
    Case(ExportOnnx(exporter="dynamo"), "two", Precision.FP32),
    Case(ExportOnnx(exporter="dynamo", opset=18), "named", Precision.FP32),
    Case(ConvertFp16(), "linear", Precision.FP16, (ONNX,), atol=2e-2),
    Case(ConvertFp16(), "conv", Precision.FP16, (ONNX,), atol=2e-3),
    Case(QuantizeDynamic(reduce_range=NARROW), "linear", Precision.INT8, (ONNX,), atol=0.1),
    Case(QuantizeStatic(calibration=LINEAR_DATA, reduce_range=NARROW), "linear", Precision.INT8, (ONNX,), atol=3.0),
    Case(
        QuantizeStatic(calibration=CONV_DATA, method="entropy", reduce_range=NARROW),
        "conv",
        Precision.INT8,
        (ONNX,),
        atol=0.1,
    ),
    Case(
        QuantizeStatic(calibration=CONV_DATA, activation_type="int8", reduce_range=NARROW),
        "conv",
        Precision.INT8,
        (ONNX,),
        atol=0.1,
    ),
    Case(
        QuantizeStatic(calibration=CONV_DATA, format="qoperator", reduce_range=NARROW),
        "conv",
        Precision.INT8,
        (ONNX,),
        atol=0.1,
    ),
    Case(QuantizeStatic(calibration=CONV_DATA, target="tensorrt"), "conv", Precision.INT8, (ONNX,), atol=0.1),
    Case(QuantizeStatic(calibration=LINEAR_DATA, weight_type="uint8"), "linear", Precision.INT8, (ONNX,), atol=3.0),
    Case(QuantizeTorch(), "linear", Precision.INT8, atol=0.2),
    Case(QuantizeTorch(mode="static", calibration=CONV_DATA), "conv", Precision.INT8, atol=0.1),
    Case(BuildTensorRt(runtime="tensorrt-rtx"), "linear", Precision.FP32, (ONNX,)),
    Case(CompileAoti(), "linear", Precision.FP32),
    *(
        pytest.param(case, marks=pytest.mark.slow)
        for case in (
            Case(CompileAoti(freezing=True), "conv", Precision.FP32),
            Case(CompileAoti(), "two", Precision.FP32, (ExportProgram(),)),
            Case(CompileAoti(precision="fp16"), "linear", Precision.FP16, atol=2e-2),
            Case(CompileAoti(precision="bf16"), "linear", Precision.BF16, atol=0.1),
        )
    ),
]


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a stage made in a new folder, the files there, and those of its source before and after."""

    made: Artifact
    files: set[str]
    before: dict[str, bytes]
    after: dict[str, bytes]


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    missing = request.param.stage.requires()
    need(not missing or all(map(deps.installed, missing)), f"{', '.join(missing)} is not installed")
    return request.param


@pytest.fixture(scope="module")
def source(case: Case, make: Make) -> Artifact:
    return make(case.sample, *case.before)


@pytest.fixture(scope="module")
def artifact(case: Case, make: Make) -> Artifact:
    return make(case.sample, *case.before, case.stage)


@pytest.fixture(scope="module")
def ran(case: Case, source: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    def contents() -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in source.path.parent.iterdir()}

    before = contents()
    made = case.stage.run(source, tmp_path_factory.mktemp("ran") / "new" / "folder")
    return Ran(made, {p.name for p in made.path.parent.iterdir()}, before, contents())


def test_the_artifact_is_what_the_stage_declares(case: Case, source: Artifact, artifact: Artifact) -> None:
    assert artifact.format is case.stage.produces
    assert artifact.precision is case.precision
    assert artifact.inputs == source.inputs
    assert artifact.outputs == source.outputs
    assert artifact.dims == source.dims == zoo.SAMPLES[case.sample].dims
    assert artifact.parent_sha256 == source.sha256
    assert artifact.notes


def test_the_file_is_there_whole_and_where_it_was_asked_for(case: Case, ran: Ran) -> None:
    made = ran.made
    assert made.path.parts[-3:] == ("new", "folder", case.stage.filename)
    assert made.path.is_absolute()
    assert made.is_intact()
    assert made.size_bytes == sum(file.stat().st_size for file in made.all_files) > 0
    assert ran.files == {file.name for file in made.all_files}


def test_its_source_is_left_as_it_was(source: Artifact, ran: Ran) -> None:
    assert ran.after == ran.before
    assert source.is_intact()


def test_the_precision_is_that_of_the_file(case: Case, artifact: Artifact) -> None:
    if artifact.format is not Format.ONNX:
        pytest.skip("the file does not state its precision")
    facts = onnx_file.facts(artifact.path)

    assert facts.precision is artifact.precision
    assert facts.inputs == artifact.inputs
    assert [spec.name for spec in facts.outputs] == [spec.name for spec in artifact.outputs]


def test_the_passport_comes_back_as_it_was_written(case: Case, ran: Ran) -> None:
    made = ran.made
    passport = Passport(artifact=made, stage=case.stage.stage, settings=case.stage.model_dump(mode="json"))
    path = passport.save()

    assert read_passport(made.path) == passport
    assert str(made.path.parent) not in json.dumps(json.loads(path.read_text())["artifact"])  # the folder may be moved


def device_of(artifact: Artifact) -> Device:
    return Device.CUDA if artifact.format is Format.TENSORRT else Device.CPU


def test_the_answers_are_right_at_every_corner(case: Case, artifact: Artifact) -> None:
    sample = zoo.SAMPLES[case.sample]
    if why_not := why_not_runnable(artifact):
        pytest.skip(why_not)
    with open_runner(artifact, device_of(artifact)) as runner:
        for sizes in corners(sample.dims):
            feed = sample.feed(sizes)
            expected = sample.expected(feed)
            found = runner.infer(feed)
            assert set(found) == set(expected)
            for name in expected:
                np.testing.assert_allclose(found[name], expected[name], atol=case.atol, rtol=1e-5, err_msg=str(sizes))


def test_another_format_is_refused(case: Case, source: Artifact, tmp_path: Path) -> None:
    other = next(format for format in Format if format not in case.stage.accepts)
    with pytest.raises(StageError, match=rf"^{case.stage.stage}: accepts .*, but {source.path.name} is {other}$"):
        case.stage.run(source.model_copy(update={"format": other}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_step_has_the_name_given_to_it(case: Case) -> None:
    assert case.stage.step == case.stage.stage
    assert case.stage.model_copy(update={"name": "mine"}).step == "mine"
