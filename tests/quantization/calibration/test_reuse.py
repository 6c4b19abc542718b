from pathlib import Path

import pytest

from optkit.artifact import Artifact, Passport
from optkit.artifact.calibration import CalibrationResult
from optkit.stages import ExportOnnx, QuantizeStatic
from tests.support import zoo
from tests.support.zoo import Make

ONNX = ExportOnnx(exporter="torchscript", opset=17)
DATA = f"{zoo.HERE}:conv_feeds"
REUSED = "calibration reused: the model, the data and the settings are unchanged"


@pytest.fixture
def source(make: Make) -> Artifact:
    return make("conv", ONNX)


@pytest.fixture
def made(source: Artifact, tmp_path: Path) -> Artifact:
    """Return a quantized model as it lies on disk, its passport beside it."""
    artifact = QuantizeStatic(calibration=DATA, method="entropy").run(source, tmp_path / "first")
    Passport(artifact=artifact).save()
    return artifact


def test_the_ranges_lie_beside_the_artifact(made: Artifact) -> None:
    passport = Passport.read(made.path.with_name("model.onnx.passport.json"))
    found = passport.artifact.calibration
    assert found is not None
    assert found == made.calibration
    assert found.key.method == "entropy"
    assert found.diagnosis.samples == 32
    assert len(found.key.data_sha256) == len(found.key.model_sha256) == 64
    assert {"x", "image", "input"} & set(found.ranges)
    assert all(low <= 0 <= high for low, high in found.ranges.values())
    assert REUSED not in made.notes


def again(made: Artifact, source: Artifact, tmp_path: Path, **keys: object) -> Artifact:
    stage = QuantizeStatic(**{"calibration": DATA, "method": "entropy", **keys}).with_earlier(made.path)
    return stage.run(source, tmp_path / "second")


@pytest.fixture
def no_calibration(made: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("calibrated again")

    monkeypatch.setattr("optkit.quantization.calibration.reuse.calibrate", refuse)


@pytest.mark.usefixtures("no_calibration")
def test_unchanged_ranges_serve_again(made: Artifact, source: Artifact, tmp_path: Path) -> None:
    found = again(made, source, tmp_path)
    assert found.calibration == made.calibration
    assert REUSED in found.notes
    assert found.sha256 == made.sha256


@pytest.mark.usefixtures("no_calibration")
def test_other_types_need_no_other_ranges(made: Artifact, source: Artifact, tmp_path: Path) -> None:
    assert REUSED in again(made, source, tmp_path, activation_type="int8", per_channel=False).notes


@pytest.mark.parametrize(
    "keys",
    [
        {"method": "mse"},
        {"sample": 2},
        {"percentile": 99.9},
        {"target": "tensorrt"},
        {"calibration": f"{zoo.HERE}:other_conv_feeds"},
    ],
)
def test_what_changed_is_calibrated_anew(
    made: Artifact, source: Artifact, tmp_path: Path, keys: dict[str, object]
) -> None:
    found = again(made, source, tmp_path, **keys)
    assert REUSED not in found.notes
    assert found.calibration
    assert found.calibration.key != (made.calibration and made.calibration.key)


def test_another_model_is_calibrated_anew(made: Artifact, source: Artifact, tmp_path: Path) -> None:
    other = source.model_copy(update={"sha256": "0" * 64})
    assert REUSED not in again(made, other, tmp_path).notes


def test_the_doctor_looks_again_where_long_tails_were_not_looked_for(source: Artifact, tmp_path: Path) -> None:
    def run(earlier: CalibrationResult | None, **keys: bool) -> CalibrationResult:
        stage = QuantizeStatic(calibration=DATA, **keys)
        stage._earlier = earlier
        artifact = stage.run(source, tmp_path / "out")
        assert artifact.calibration
        return artifact.calibration

    plain = run(None)
    assert plain.diagnosis.long_tails is None
    examined = run(plain, doctor=True)
    assert examined.diagnosis.long_tails is not None
    assert examined.ranges == plain.ranges
    assert run(examined) is examined


@pytest.mark.parametrize("damage", ["passport", "file", "missing"])
def test_of_a_damaged_or_missing_artifact_nothing_is_taken(
    made: Artifact, source: Artifact, tmp_path: Path, damage: str
) -> None:
    match damage:
        case "passport":
            made.path.with_name("model.onnx.passport.json").write_text("{")
        case "file":
            made.path.write_bytes(made.path.read_bytes() + b"\0")
        case "missing":
            made.path.unlink()
    assert REUSED not in again(made, source, tmp_path).notes
