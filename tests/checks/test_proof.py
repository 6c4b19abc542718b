"""The whole proof of one artifact, and how often its file is opened for it."""

from pathlib import Path

from optkit.artifact import Artifact, Passport
from optkit.checks import Prover, Requirements
from optkit.data import Samples
from optkit.runners import Device, Runner, open_runner
from optkit.stages import ExportOnnx, ExportTorchScript, Stage
from tests.support import zoo
from tests.support.zoo import Make

TRACED = ExportOnnx(exporter="torchscript", opset=17)


class Opened:
    """Opens runners, and records the names of the files in order."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, artifact: Artifact, device: Device) -> Runner:
        self.names.append(artifact.path.name)
        return open_runner(artifact, device)


def prove(source: Artifact, artifact: Artifact, stage: Stage, opened: Opened | None = None) -> Passport:
    prover = Prover(source, Samples(source.inputs, source.dims), Requirements(), opened or Opened())
    prover.parity(artifact)  # the choice between exporters checks it first
    return prover.prove(Passport(artifact=artifact, stage=stage.stage))[0]


def test_an_artifact_with_parity_is_opened_once(make: Make, tmp_path: Path) -> None:
    source, opened = make("linear"), Opened()
    passport = prove(source, TRACED.run(source, tmp_path / "out"), TRACED, opened)
    assert opened.names == ["model.onnx", source.path.name]
    assert passport.parity is not None
    assert passport.parity.passed
    assert passport.batch_independence is not None
    assert passport.batch_independence.passed


def test_an_artifact_without_parity_still_answers_for_its_batches(tmp_path: Path) -> None:
    source, opened = zoo.bad("branches").source(tmp_path), Opened()
    stage = ExportTorchScript(method="trace")
    passport = prove(source, stage.run(source, tmp_path / "out"), stage, opened)
    assert opened.names == ["model.pt", source.path.name, "model.pt"]
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
