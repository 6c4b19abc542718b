import shutil
from pathlib import Path

import pytest

from optkit.artifact import Artifact, Passport, passport_path, read_passport
from optkit.artifact.tensors import DimRange
from optkit.errors import ArtifactError
from optkit.hashing import hash_of, sha256_of
from optkit.pytorch.source import open_artifact


@pytest.fixture
def artifact(onnx_linear: Artifact, onnx_copy: Path) -> Artifact:
    """Return an artifact of its own with its passport saved."""
    copy = onnx_linear.model_copy(update={"path": onnx_copy})
    Passport(artifact=copy).save()
    return copy


def test_no_passport_is_none(onnx_copy: Path) -> None:
    assert read_passport(onnx_copy) is None


def test_a_folder_may_be_moved(artifact: Artifact, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in (artifact.path, passport_path(artifact.path)):
        shutil.move(file, moved)
    passport = read_passport(moved / "model.onnx")
    assert passport is not None
    assert passport.artifact == artifact.model_copy(update={"path": moved / "model.onnx"})


def test_a_changed_file_is_refused(artifact: Artifact) -> None:
    content = bytearray(artifact.path.read_bytes())
    content[-1] ^= 1
    artifact.path.write_bytes(content)

    assert not artifact.is_intact()
    with pytest.raises(
        ArtifactError, match=r"its SHA-256 differs from model\.onnx\.passport\.json: the file was changed\. Make the"
    ):
        read_passport(artifact.path)
    with pytest.raises(ArtifactError, match="its SHA-256 differs from"):
        open_artifact(artifact.path)


def test_a_part_that_is_gone_is_noticed(artifact: Artifact) -> None:
    part = artifact.path.with_name("model.onnx.data")
    part.write_bytes(b"weights")
    whole = artifact.model_copy(update={"files": (part.name,), "sha256": sha256_of(artifact.path, part)})
    assert whole.is_intact()
    assert whole.size_bytes == artifact.size_bytes + 7
    part.write_bytes(b"Weights")
    assert not whole.is_intact()
    part.unlink()
    assert not whole.is_intact()


def test_a_passport_of_another_schema_is_refused(artifact: Artifact) -> None:
    path = passport_path(artifact.path)
    path.write_text(path.read_text().replace("optkit/passport/4", "optkit/passport/9"))
    with pytest.raises(ArtifactError, match=r"schema 'optkit/passport/9'; .* Make the file again\."):
        read_passport(artifact.path)


def test_a_damaged_passport_is_refused(artifact: Artifact) -> None:
    path = passport_path(artifact.path)
    path.write_text(path.read_text()[:40])
    with pytest.raises(ArtifactError, match="cannot be read as JSON"):
        read_passport(artifact.path)


def test_an_artifact_says_what_it_was_built_with(artifact: Artifact) -> None:
    assert {"optkit", "torch", "onnx", "onnxruntime"} <= set(artifact.built_with)


def test_ranges_given_replace_those_of_the_passport(artifact: Artifact) -> None:
    batch = DimRange(min=2, opt=2, max=2)
    assert open_artifact(artifact.path, {"batch": batch}).dims == {"batch": batch}
    assert open_artifact(artifact.path).dims == artifact.dims


def test_a_file_that_cannot_be_hashed_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none: cannot be read \(No such file or directory\)"):
        sha256_of(tmp_path / "none")


def test_the_hash_of_several_files_depends_on_their_order(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"1")
    b.write_bytes(b"2")
    assert len({sha256_of(a), sha256_of(b), sha256_of(a, b), sha256_of(b, a)}) == 4


def test_a_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert hash_of({"a": 1, "b": [2]}) == hash_of({"b": [2], "a": 1}) != hash_of({"a": 1, "b": [3]})
