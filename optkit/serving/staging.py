"""Files of a package are written aside and moved into place, all of them or none."""

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from optkit.errors import OutputError


@contextlib.contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Make `folder` if need be and give a temporary folder in it, on the same disk, that is gone after the block.

    Raises:
        OutputError: it cannot be made or written.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file; expected a folder to write to")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".optkit-", dir=folder) as name:
            yield Path(name)
    except OSError as e:
        raise OutputError(f"{folder}: cannot be written ({e.strerror or e})") from e


def move_in(moves: Iterable[tuple[Path, Path]], old: Path) -> None:
    """Move staged files and folders to their places, in order and all of them or none; what stood there goes to the folder `old`.

    Raises:
        OSError: one could not be moved; everything stands where it stood.
    """
    with contextlib.ExitStack() as undo:
        for i, (staged, target) in enumerate(moves):
            if target.exists():
                old.mkdir(exist_ok=True)
                before = old / str(i)
                target.rename(before)
                undo.callback(before.rename, target)
            staged.rename(target)
            undo.callback(target.rename, staged)
        undo.pop_all()


def files_below(folder: Path) -> tuple[str, ...]:
    """Return every file below a folder, relative to it, sorted."""
    return tuple(sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()))


def as_json(content: Any) -> bytes:
    """Return a value as an indented JSON file."""
    return (json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()
