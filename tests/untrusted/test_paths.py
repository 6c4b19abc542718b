"""Names that a file gives of other files, and paths that a user gives."""

import os
import socket
from pathlib import Path
from typing import ClassVar

import pytest

from optkit.errors import ArtifactError
from optkit.hashing import sha256_of
from optkit.record import Document
from optkit.untrusted.paths import FileName, file_fault, file_in, name_fault, path_fault
from tests.support.hostile import within


@pytest.mark.parametrize(
    "name", ["x", "x.bin", "a/b/c", "./x", "a//b", "a/./b", "...", "..x", "onnx::MatMul_1", "ä", "a b", "x" * 255]
)
def test_a_name_below_the_folder_is_good(name: str) -> None:
    assert name_fault(name) is None


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "names no file"),
        (".", "names no file"),
        ("./.", "names no file"),
        ("..", "leads out of its folder by '..'"),
        ("a/../b", "leads out of its folder by '..'"),
        ("/a", "is an absolute path"),
        ("//host/a", "is an absolute path"),
        ("C:\\a", "is a path of Windows"),
        ("c:a", "is a path of Windows"),
        ("a\\..\\b", "is a path of Windows"),
        ("a\0", "holds a control character"),
        ("a\x1b[2J", "holds a control character"),
        ("\ud800", "is not valid UTF-8"),
        ("a/" + "x" * 256, "is too long: 256 bytes in one name"),
    ],
)
def test_another_name_is_refused_before_the_disk_is_looked_at(name: str, fault: str, tmp_path: Path) -> None:
    assert name_fault(name) == file_fault(tmp_path, name) == fault


def test_only_a_regular_file_is_good_and_no_link_may_lead_to_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("a/file")
    (tmp_path / "broken").symlink_to("none")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "folder").symlink_to("a")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(tmp_path, os.O_RDONLY)  # a socket's address is short
        server.bind(f"/proc/self/fd/{folder}/socket")
        os.close(folder)
    faults = {
        "a/file": None,
        "a": "is a directory",
        "none": "is missing",
        "a/file/below": "is missing",
        "link": "is a link",
        "broken": "is a link",
        "round": "is a link",
        "folder/file": "lies behind the link 'folder'",
        "fifo": "is a FIFO, a socket or a device",
        "socket": "is a FIFO, a socket or a device",
    }
    assert {name: file_fault(tmp_path, name) for name in faults} == faults
    (tmp_path.parent / "linked").unlink(missing_ok=True)
    (tmp_path.parent / "linked").symlink_to(tmp_path)
    assert file_fault(tmp_path.parent / "linked", "a/file") is None  # the folder itself is the user's choice


def test_a_refusal_says_where_what_was_expected_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    for name, says in (
        (
            "../x",
            rf"^m\.onnx: data '\.\./x' leads out .*; expected a regular file in {tmp_path} or below it\. Do this\.$",
        ),
        (
            "link",
            r"'link' is a link; .* Copy the folder with its links followed, as `cp -rL` does, and use the copy\.$",
        ),
        ("y" * 300, r"'y{79}\.\.\. \(300 characters\) is too long"),
    ):
        with pytest.raises(ArtifactError, match=says):
            file_in(tmp_path, name, "m.onnx: data", "Do this.")


def test_a_path_of_the_user_may_be_a_link_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "to-fifo").symlink_to("fifo")
    assert path_fault(tmp_path / "file") is path_fault(tmp_path / "link") is None
    assert path_fault(tmp_path) == "is a directory"
    assert path_fault(tmp_path / "to-fifo") == path_fault(Path("/dev/zero")) == "is a FIFO, a socket or a device"
    assert path_fault(tmp_path / "none") == path_fault(tmp_path / "file" / "x") == "no such file"
    assert path_fault(tmp_path / ("x" * 300)) == "cannot be looked at (File name too long)"
    assert path_fault(tmp_path / "a\0b") == "cannot be looked at (embedded null byte)"


def test_what_has_no_end_is_not_hashed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with (
            within(5),
            pytest.raises(
                ArtifactError, match="is not a regular file; expected a regular file to compute the SHA-256 of"
            ),
        ):
            sha256_of(path)


class _Named(Document):
    schema_id: ClassVar[str] = "optkit/test/1"

    file: FileName
    hashes: dict[FileName, str]


def test_a_record_with_a_name_that_leads_out_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text('{"schema": "optkit/test/1", "file": "./a//b", "hashes": {"c": ""}}')
    assert _Named.read(path).file == "a/b"
    for file, key in (("../a", "c"), ("a", "../c")):
        path.write_text(f'{{"schema": "optkit/test/1", "file": "{file}", "hashes": {{"{key}": ""}}}}')
        says = r"record\.json: .*'\.\./[ac]' leads out of its folder by '\.\.'; expected the name of a file in the same folder"
        with pytest.raises(ArtifactError, match=says):
            _Named.read(path)
