"""Atomic writing of a package: its files are written to a temporary folder and moved to their places, all or none.

A list of the moves lies in the temporary folder while they are made. When the process is killed, the next one to write there moves back what
was moved, so that a file that was about to be replaced is never lost.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from optkit.errors import ArtifactError, OutputError
from optkit.system.lock import locked_folder
from optkit.system.temporary import is_left, sweep, temporary_file, temporary_folder
from optkit.untrusted.documents import read_json
from optkit.untrusted.paths import exists, is_file, name_fault, new_file_fault

_MOVES = ".moves.json"
_REPLACED = ".replaced"


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Create a repository or model store if it does not exist, and hold its lock; what a killed process left there is cleared away.

    Raises:
        OutputError: the folder cannot be written, or another process writes to it for longer than OPTKIT_WAIT_S allows.
    """
    if fault := new_file_fault(folder):
        raise OutputError(f"{folder}: {fault}; expected a folder to write to")
    with locked_folder(folder):
        for path in folder.iterdir():
            if is_left(path, exclusive=True) and is_file(path / _MOVES):
                _move_back(folder, path)
        sweep(folder, exclusive=True)
        yield


@contextlib.contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder in `folder`, which `writing` has created; on the same disk. It is deleted after the block.

    Raises:
        OutputError: a folder cannot be created or written.
    """
    try:
        with temporary_folder(folder, "staged") as temporary:
            yield temporary
    except OSError as e:
        raise OutputError(f"{folder}: cannot be written ({e.strerror or e})") from e


def move_in(moves: Iterable[tuple[Path, Path]], temporary: Path) -> None:
    """Move staged files and folders from `temporary` to their places, all or none. It keeps those that were there before.

    Raises:
        OSError: one could not be moved; all others were moved back.
    """
    moves = list(moves)
    folder = temporary.parent
    listed = [[str(staged.relative_to(temporary)), str(target.relative_to(folder))] for staged, target in moves]
    (temporary / _REPLACED).mkdir()
    with temporary_file(temporary / _MOVES) as file:
        file.write_bytes(as_json(listed))
        file.replace(temporary / _MOVES)
    try:
        for i, (staged, target) in enumerate(moves):
            if exists(target):
                target.rename(temporary / _REPLACED / str(i))
            staged.rename(target)
    except BaseException:
        _move_back(folder, temporary)
        raise
    (temporary / _MOVES).unlink()


def _move_back(folder: Path, temporary: Path) -> None:
    """Undo the moves that were made; a kill in the middle of this leaves a state from which it can be done again.

    Raises:
        OutputError: a file cannot be moved; nothing is deleted.
    """
    try:
        for i, (staged, target) in reversed(list(enumerate(read_json(temporary / _MOVES)))):
            if fault := name_fault(staged) or name_fault(target):
                raise ValueError(f"{_MOVES}: a name in it {fault}")
            before = temporary / _REPLACED / str(i)
            if not exists(temporary / staged) and exists(folder / target):
                (folder / target).rename(temporary / staged)
            if exists(before):
                before.rename(folder / target)
    except (OSError, ValueError, TypeError, ArtifactError) as e:
        raise OutputError(
            f"{folder}: a killed process left {temporary.name}, whose files cannot be moved back ({e}). Move them by hand, then delete it."
        ) from e
    (temporary / _MOVES).unlink()


def content_bytes(files: Iterable[Path | bytes]) -> int:
    """Return the size of the files of a package."""
    return sum(len(file) if isinstance(file, bytes) else file.stat().st_size for file in files)


def files_below(folder: Path) -> tuple[str, ...]:
    """Return every file below a folder, relative to it, sorted."""
    return tuple(sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if is_file(file)))


def as_json(content: Any) -> bytes:
    """Return a value as an indented JSON file."""
    return (json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()
