from pathlib import Path

import pytest

import optkit
from optkit.artifact import Artifact, Passport, passport
from optkit.artifact.findings import BatchIndependence
from optkit.errors import StageError
from optkit.hashing import sha256_of

PROVEN = BatchIndependence(dim="batch")
REFUTED = BatchIndependence(dim="batch", failure="row 1 changes with row 0")


def test_the_passport_of_a_file_says_whether_the_server_may_batch(
    onnx_linear: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checked_again(*_: object) -> None:
        raise AssertionError("the passport has the answer")

    Passport(artifact=onnx_linear, batch_independence=PROVEN).save()
    monkeypatch.setattr("optkit.api.package.check_batch_independence", checked_again)
    done = optkit.package_triton(onnx_linear.path, tmp_path / "repository", warmup=False, client=False)
    config = (done.packages[0].path / "config.pbtxt").read_text()
    assert "dynamic_batching" in config
    Passport(artifact=onnx_linear, batch_independence=REFUTED).save()
    with pytest.raises(StageError, match="batching would give wrong answers: row 1 changes with row 0"):
        optkit.package_triton(onnx_linear.path, tmp_path / "other", warmup=False, client=False)


def test_a_file_is_held_against_its_passport_once(
    onnx_linear: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []

    def counted(*files: Path) -> str:
        hashed.extend(files)
        return sha256_of(*files)

    Passport(artifact=onnx_linear, batch_independence=PROVEN).save()
    monkeypatch.setattr(passport, "sha256_of", counted)
    optkit.package_triton(onnx_linear.path, tmp_path / "repository", client=False)
    assert hashed == [onnx_linear.path]
