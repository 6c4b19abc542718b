import contextlib
import json
import math
import os
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field, ValidationError

from optkit.errors import ArtifactError, OutputError
from optkit.record import Document, Record, atomic_path


class Note(Document):
    schema_id: ClassVar[str] = "test/note/1"

    text: str
    value: float = 0.0


def test_a_record_is_frozen_and_refuses_unknown_keys() -> None:
    class Point(Record):
        x: int

    with pytest.raises(ValidationError, match="frozen"):
        Point(x=1).x = 2
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Point.model_validate({"x": 1, "y": 2})


def test_a_document_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a" / "note.json"
    Note(text="größer", value=0.1).write(path)

    assert Note.read(path) == Note(text="größer", value=0.1)
    assert path.read_text().startswith('{\n  "schema": "test/note/1",')
    assert [p.name for p in path.parent.iterdir()] == ["note.json"]


def test_nan_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    with pytest.raises(ValidationError, match="Input should be a finite number"):
        Note(text="", value=math.nan)
    with pytest.raises(ValueError, match="not JSON compliant"):
        Note.model_construct(text="", value=math.nan).write(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"schema": "test/note/2", "text": ""}', "schema 'test/note/2'; this version of optkit reads 'test/note/1'"),
        (b'{"text": ""}', "schema None; this version of optkit reads 'test/note/1'. Make the file again."),
        (b"[1, 2]", "schema None"),
        (b'{"schema": "test/note/1"}', "text: Field required"),
        (b'{"schema": "test/note/1", "text": "", "x": 1}', "x: Extra inputs are not permitted"),
        (b'{"schema": "test/no', "cannot be read as JSON"),
        (b"", "cannot be read as JSON"),
        (b"\xff\xfe\x00", "cannot be read as JSON"),
    ],
)
def test_what_is_no_such_document_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "note.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        Note.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_a_missing_document_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read as JSON"):
        Note.read(tmp_path / "none.json")
    with pytest.raises(ArtifactError, match="cannot be read as JSON"):
        Note.read(tmp_path)


def test_an_error_in_between_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with contextlib.suppress(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_new_file_appears_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask  # as any other program would have made it


def test_a_file_where_a_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/note\.json: cannot be written \("):
        Note(text="").write(tmp_path / "file" / "note.json")


def test_a_folder_where_the_file_should_be_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot be written \(Is a directory\)"):
        Note(text="").write(tmp_path)


class Sealed(Document):
    schema_id: ClassVar[str] = "test/sealed/1"
    sealed: ClassVar[bool] = True

    text: str
    values: dict[int, float] = Field(default_factory=dict)


def test_a_sealed_document_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    note = Sealed(text="größer\u2028", values={10: 1e-7, 9: 0.1, 2: 1.0})
    note.write(path)
    assert Sealed.read(path) == note
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))  # by another tool: the same content
    assert Sealed.read(path) == note


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"text": "other"},
            "was changed after optkit wrote it: its content does not have the hash in its content_sha256",
        ),
        ({"values": {"2": 1.5}}, "was changed after optkit wrote it"),
        ({"extra": 1}, "was changed after optkit wrote it"),
        ({"content_sha256": "0" * 64}, "was changed after optkit wrote it"),
        ({"content_sha256": 7}, "was changed after optkit wrote it"),
        ({"content_sha256": None}, "has no content_sha256, which optkit writes into every file of this kind"),
        ({"schema": "test/sealed/0"}, "schema 'test/sealed/0'; this version of optkit reads 'test/sealed/1'"),
    ],
)
def test_a_sealed_document_that_was_edited_says_so(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "note.json"
    Sealed(text="", values={2: 1.0}).write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactError) as caught:
        Sealed.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "Make the file again" in str(caught.value)


def test_the_schema_of_a_sealed_document_has_its_hash() -> None:
    assert "content_sha256" in Sealed.json_schema()["required"]
    assert "content_sha256" not in Note.json_schema()["properties"]
