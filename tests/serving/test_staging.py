"""Packages are written all or none: also when the process is killed between two moves, or while they are undone."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from optkit.errors import OutputError
from optkit.serving.staging import move_in, staging, writing

BEFORE = {"m/config.pbtxt": "edited by hand", "m/1/model": "old", "other/1/model": "other"}
AFTER = {"m/config.pbtxt": "new", "m/1/model": "new", "m/2/model": "new", "n/1/model": "new", "other/1/model": "other"}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def replace(folder: Path) -> None:
    with writing(folder), staging(folder) as temporary:
        write(temporary, {name: text for name, text in AFTER.items() if text == "new"})
        parts = [("m/config.pbtxt", "m/config.pbtxt"), ("m/1", "m/1"), ("m/2", "m/2"), ("n", "n")]
        move_in([(temporary / staged, folder / target) for staged, target in parts], temporary)


def killed_after(changes: int, work: Callable[[], None]) -> bool:
    """Run in another process, which ends at once before its rename or deletion of this number; say whether it came so far."""
    child = os.fork()
    if not child:
        left = changes

        def counted(name: str, real: Callable[..., object]) -> None:
            def call(*arguments: object, **options: object) -> object:
                nonlocal left
                if not left:
                    os._exit(9)
                left -= 1
                return real(*arguments, **options)

            setattr(os, name, call)

        for name in ("rename", "replace", "unlink", "rmdir", "mkdir"):
            counted(name, getattr(os, name))
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_a_process_that_is_killed_anywhere_leaves_the_old_package_or_the_new_one(tmp_path: Path) -> None:
    for at in range(100):
        folder = tmp_path / str(at)
        write(folder, BEFORE)
        killed = killed_after(at, lambda folder=folder: replace(folder))
        for undo in range(at % 7):  # and the one that undoes it is killed too
            killed_after(undo, lambda folder=folder: writing(folder).__enter__())
        with writing(folder):
            pass
        assert content(folder) in (BEFORE, AFTER), at
        assert [path for path in folder.iterdir() if path.name.startswith(".")] == []
        replace(folder)
        assert content(folder) == AFTER
        if not killed:
            break
    assert 15 < at < 99


def test_a_list_of_moves_that_cannot_be_read_deletes_nothing(tmp_path: Path) -> None:
    left = tmp_path / ".staged.optkit-1-1-00000000-00000001"
    write(left, {".moves.json": "{", "m/1/model": "new", ".replaced/0": "old"})
    with (
        pytest.raises(OutputError, match=r"a killed process left .staged.* cannot be moved back .*Move them by hand"),
        writing(tmp_path),
    ):
        pass
    assert content(left)[".replaced/0"] == "old"


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd"])
def test_a_list_of_moves_cannot_name_a_file_outside(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    left = folder / ".staged.optkit-1-1-00000000-00000001"
    write(left, {".moves.json": json.dumps([["m", name]])})
    write(tmp_path, {"outside": "mine"})
    with pytest.raises(OutputError, match="cannot be moved back"), writing(folder):
        pass
    assert (tmp_path / "outside").read_text() == "mine"
