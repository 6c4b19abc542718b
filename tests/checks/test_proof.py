"""The whole proof of one artifact, and how often its file is opened for it."""

from pathlib import Path

import pytest

from optkit.artifact import Artifact, Passport
from optkit.checks import Prover, Requirements, proof
from optkit.data import Samples
from optkit.runners import Device, Runner, open_runner
from optkit.stages import ExportOnnx, ExportTorchScript, Stage
from tests.support import zoo
from tests.support.zoo import Make

TRACED = ExportOnnx(exporter="torchscript", opset=17)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that runners were asked for, in order."""
    names: list[str] = []

    def counted(artifact: Artifact, device: Device) -> Runner:
        names.append(artifact.path.name)
        return open_runner(artifact, device)

    monkeypatch.setattr(proof, "open_runner", counted)
    return names


def prove(source: Artifact, artifact: Artifact, stage: Stage) -> Passport:
    prover = Prover(source, Samples(source.inputs, source.dims), Requirements())
    prover.parity(artifact)  # as the choice between exporters asks first
    return prover.prove(Passport(artifact=artifact, stage=stage.stage))[0]


def test_an_artifact_with_parity_is_opened_once(make: Make, tmp_path: Path, opened: list[str]) -> None:
    source = make("linear")
    passport = prove(source, TRACED.run(source, tmp_path / "out"), TRACED)
    assert opened == ["model.onnx", source.path.name]
    assert passport.parity is not None
    assert passport.parity.passed
    assert passport.batch_independence is not None
    assert passport.batch_independence.passed


def test_an_artifact_without_parity_still_answers_for_its_batches(tmp_path: Path, opened: list[str]) -> None:
    source = zoo.bad("branches").source(tmp_path)
    stage = ExportTorchScript(method="trace")
    passport = prove(source, stage.run(source, tmp_path / "out"), stage)
    assert opened == ["model.pt", source.path.name, "model.pt"]
    assert passport.parity is not None
    assert not passport.parity.passed
    assert passport.batch_independence is not None


def test_parity_hides_no_dependence_between_samples(tmp_path: Path) -> None:
    source = zoo.bad("mixes_batch").source(tmp_path)
    passport = prove(source, TRACED.run(source, tmp_path / "out"), TRACED)
    assert passport.parity is not None
    assert passport.parity.passed
    assert passport.batch_independence is not None
    assert "depends on the other samples in its batch" in str(passport.batch_independence.failure)
