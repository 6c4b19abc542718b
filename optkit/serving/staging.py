"""Atomic writing of a package: its files are written to a temporary folder and moved to their places, all or none."""

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from optkit.errors import OutputError
from optkit.untrusted.paths import exists, is_file, is_folder, new_file_fault


@contextlib.contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Create `folder` if it does not exist, and yield a temporary folder in it, on the same disk. It is deleted after the block.

    Raises:
        OutputError: a folder cannot be created or written.
    """
    if fault := new_file_fault(folder):
        raise OutputError(f"{folder}: {fault}; expected a folder to write to")
    if exists(folder) and not is_folder(folder):
        raise OutputError(f"{folder}: is a file; expected a folder to write to")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".optkit-", dir=folder) as name:
            yield Path(name)
    except OSError as e:
        raise OutputError(f"{folder}: cannot be written ({e.strerror or e})") from e


def move_in(moves: Iterable[tuple[Path, Path]], old: Path) -> None:
    """Move staged files and folders to their places, all or none. Existing files and folders move to the folder `old`.

    Raises:
        OSError: one could not be moved; all others were moved back.
    """
    with contextlib.ExitStack() as undo:
        for i, (staged, target) in enumerate(moves):
            if exists(target):
                old.mkdir(exist_ok=True)
                before = old / str(i)
                target.rename(before)
                undo.callback(before.rename, target)
            staged.rename(target)
            undo.callback(target.rename, staged)
        undo.pop_all()


def files_below(folder: Path) -> tuple[str, ...]:
    """Return every file below a folder, relative to it, sorted."""
    return tuple(sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if is_file(file)))


def as_json(content: Any) -> bytes:
    """Return a value as an indented JSON file."""
    return (json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()
