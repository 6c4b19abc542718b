from pathlib import Path

import numpy as np
import pytest

import optkit
from optkit.api.make import make_file
from optkit.artifact import Artifact, Passport, Precision, read_passport
from optkit.artifact.findings import Tolerance
from optkit.artifact.gates import Gates
from optkit.checks import Requirements
from optkit.data import Samples
from optkit.errors import OutputError, StageError
from optkit.runners import open_runner
from optkit.stages import ConvertFp16, ExportOnnx, QuantizeDynamic, Stage
from tests.support import zoo
from tests.support.project import files_below
from tests.support.zoo import Make

ASKED = Requirements()


def make_at(
    output: Path,
    source: Artifact,
    stage: Stage,
    asked: Requirements = ASKED,
    gates: Gates | None = None,
    force: bool = False,
) -> Passport:
    samples = Samples(source.inputs, source.dims)
    return make_file(stage, source, output, requirements=asked, gates=gates or Gates(), samples=samples, force=force)


def test_a_file_is_made_with_its_passport_and_nothing_else(onnx_linear: Artifact, tmp_path: Path) -> None:
    output = tmp_path / "new" / "half.onnx"
    made = make_at(output, onnx_linear, ConvertFp16())
    assert made.failures == ()
    assert files_below(tmp_path / "new") == {"half.onnx", "half.onnx.passport.json"}
    assert made == read_passport(output)
    assert made.artifact.path == output
    assert made.parity is not None
    assert made.parity.passed
    with open_runner(made.artifact) as runner:
        feed = zoo.SAMPLES["linear"].feed({"batch": 3})
        expected = zoo.SAMPLES["linear"].expected(feed)["output"]
        np.testing.assert_allclose(runner.infer(feed)["output"], expected, atol=2e-2)


def test_nothing_is_written_when_it_is_not_proven_equal(onnx_linear: Artifact, tmp_path: Path) -> None:
    exact = Requirements(tolerances={Precision.INT8: Tolerance(atol=0, rtol=0)})
    made = make_at(tmp_path / "int8.onnx", onnx_linear, QuantizeDynamic(), exact)
    assert made.failures[0].startswith("parity: output 'output' at batch=4: ")
    assert files_below(tmp_path) == set()


def test_what_was_there_stays_when_the_new_one_is_not_proven(onnx_linear: Artifact, tmp_path: Path) -> None:
    output = tmp_path / "int8.onnx"
    output.write_text("mine")
    exact = Requirements(tolerances={Precision.INT8: Tolerance(atol=0, rtol=0)})
    assert make_at(output, onnx_linear, QuantizeDynamic(), exact, force=True).failures
    assert output.read_text() == "mine"
    assert files_below(tmp_path) == {"int8.onnx"}


def test_an_existing_file_is_refused_before_any_work(
    onnx_linear: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "half.onnx"
    output.write_text("mine")
    monkeypatch.setattr(ConvertFp16, "make", lambda *_: pytest.fail("was run"))
    with pytest.raises(OutputError, match=r"half\.onnx: exists already\. Give --force to replace it"):
        make_at(output, onnx_linear, ConvertFp16())
    assert output.read_text() == "mine"


def test_force_replaces_the_file_and_its_passport(onnx_linear: Artifact, tmp_path: Path) -> None:
    output = tmp_path / "model.onnx"
    make_at(output, onnx_linear, ConvertFp16())
    make_at(output, onnx_linear, QuantizeDynamic(), force=True)
    passport = read_passport(output)
    assert passport is not None
    assert passport.artifact.precision is Precision.INT8


def test_a_stage_that_fails_leaves_nothing(make: Make, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"^export-onnx: the torchscript exporter failed: "):
        make_at(tmp_path / "model.onnx", make("linear"), ExportOnnx(exporter="torchscript", opset=99))
    assert files_below(tmp_path) == set()


def test_a_proof_that_fails_leaves_nothing(onnx_linear: Artifact, tmp_path: Path) -> None:
    (tmp_path / "accuracy.py").write_text("def evaluate(predict):\n    return 1 / 0\n")
    asked = Requirements(evaluation=f"{tmp_path}/accuracy.py:evaluate")
    with pytest.raises(Exception, match=r"accuracy\.py:2: ZeroDivisionError"):
        make_at(tmp_path / "half.onnx", onnx_linear, ConvertFp16(), asked)
    assert files_below(tmp_path) == {"accuracy.py"}


def test_accuracy_is_held_against_the_source(onnx_linear: Artifact, tmp_path: Path) -> None:
    code = "calls = []\ndef evaluate(predict):\n    calls.append(1)\n    return 0.75 if len(calls) % 2 else 1.0\n"
    (tmp_path / "accuracy.py").write_text(code)  # the candidate is asked first
    asked = Requirements(evaluation=f"{tmp_path}/accuracy.py:evaluate")
    made = make_at(tmp_path / "half.onnx", onnx_linear, ConvertFp16(), asked, Gates(max_accuracy_drop=0.2))
    says = "accuracy: 0.7500 is 0.2500 below the source's 1.0000; at most 0.2 is allowed"
    assert made.failures == (says,)
    assert not (tmp_path / "half.onnx").exists()
    made = make_at(tmp_path / "half.onnx", onnx_linear, ConvertFp16(), asked, Gates(max_accuracy_drop=0.25))
    assert made.failures == ()
    assert (tmp_path / "half.onnx").exists()


def test_a_function_of_the_callers_is_called_once(onnx_linear: Artifact, tmp_path: Path) -> None:
    calls: list[int] = []

    def feeds() -> list[dict[str, np.ndarray]]:
        calls.append(1)
        return [zoo.SAMPLES["linear"].feed({"batch": 8}, seed) for seed in range(8)]

    for i, smooth in enumerate((None, 0.5)):
        optkit.quantize(
            onnx_linear,
            tmp_path / f"{i}.onnx",
            mode="static",
            calibration=feeds,
            smooth=smooth,
            dims={"batch": (1, 4, 16)},
        )
        assert len(calls) == i + 1
