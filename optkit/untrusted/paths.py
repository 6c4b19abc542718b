"""Paths to trust: the one rule for the name of a file that another file gives, and what a path is before it is opened."""

import os
import stat
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated

from pydantic import AfterValidator

from optkit.errors import ArtifactError

StrPath = str | os.PathLike[str]
_NAME_BYTES = 255  # bytes in the name of one file, on every file system that matters
_SHOWN = 80
_SPECIAL = "is a FIFO, a socket or a device"
_LINKS = "Copy the folder with its links followed, as `cp -rL` does, and use the copy."


def name_fault(name: str) -> str | None:
    """Return why a name that a file gives may lead out of its folder, or names nothing; None for a good one.

    Nothing on the disk is looked at, and the answer is the same on every system.
    """
    parts = PurePosixPath(name).parts
    if not parts:
        return "names no file"
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        return "holds a control character"
    if PurePosixPath(name).is_absolute():
        return "is an absolute path"
    if "\\" in name or PureWindowsPath(name).drive:
        return "is a path of Windows"
    if ".." in parts:
        return "leads out of its folder by '..'"
    try:
        longest = max(len(part.encode()) for part in parts)
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    return f"is too long: {longest} bytes in one name" if longest > _NAME_BYTES else None


def file_fault(folder: Path, name: str) -> str | None:
    """Return why a name that a file gives is no regular file in `folder` or below it; None when it is one.

    `folder` itself may lie behind a link, because the user named it. What lies below it may not.
    """
    fault = name_fault(name)
    if fault:
        return fault
    path, parts = folder, PurePosixPath(name).parts
    for i, part in enumerate(parts, 1):
        path = path / part
        try:
            mode = path.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return "is missing"
        except OSError as e:
            return f"cannot be looked at ({e.strerror or e})"
        if stat.S_ISLNK(mode):
            return "is a link" if i == len(parts) else f"lies behind the link {part!r}"
    return _kind_fault(mode)


def file_in(folder: Path, name: str, said_by: str, advice: str) -> Path:
    """Return the path of a file that another file names, so that it can be opened, copied or deleted.

    Args:
        folder: the folder that the name is relative to.
        name: the name, as the other file gives it.
        said_by: the other file and what it names; begins the message.
        advice: what to do when the name is refused; for a link the message says how to copy what it links to.

    Raises:
        ArtifactError: it is no regular file in the folder or below it.
    """
    fault = file_fault(folder, name)
    if fault:
        what_to_do = _LINKS if "link" in fault else advice
        raise ArtifactError(
            f"{said_by} {shown(name)} {fault}; expected a regular file in {folder} or below it. {what_to_do}"
        )
    return folder / PurePosixPath(name)


def path_fault(path: Path) -> str | None:
    """Return why a path that a user names is no file that can be read to its end; None when it is one. Links are followed."""
    try:
        return _kind_fault(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return "no such file"
    except (OSError, ValueError) as e:  # ValueError: a NUL, which YAML and JSON can hold
        return f"cannot be looked at ({getattr(e, 'strerror', None) or e})"


def new_file_fault(path: Path) -> str | None:
    """Return why no file of this path can be made, by its text alone; None when one can."""
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if b"\0" in encoded:
        return "contains the character NUL"
    longest = len(os.fsencode(path.name))
    return f"is too long: {longest} bytes in one name, at most {_NAME_BYTES}" if longest > _NAME_BYTES else None


def user_path(path: StrPath) -> Path:
    """Return a path that a user gives; `~` is the home folder, and the name of a user that there is not stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser() raises where there is no such user


def is_file(path: StrPath) -> bool:
    """Return whether a path leads to a regular file; False too for a path that cannot be looked at, such as one that is too long."""
    return os.path.isfile(path)  # noqa: PTH113 - the methods of Path raise for a name that is too long


def is_folder(path: StrPath) -> bool:
    """Return whether a path leads to a folder; False too for a path that cannot be looked at."""
    return os.path.isdir(path)  # noqa: PTH112


def exists(path: StrPath) -> bool:
    """Return whether a path leads to anything; False too for a path that cannot be looked at."""
    return os.path.exists(path)  # noqa: PTH110


def _kind_fault(mode: int) -> str | None:
    if stat.S_ISDIR(mode):
        return "is a directory"
    return None if stat.S_ISREG(mode) else _SPECIAL


def shown(name: str) -> str:
    """Return a name as messages show it: quoted, escaped, and cut where it is long."""
    text = repr(name)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(name)} characters)"


def _checked(name: str) -> str:
    fault = name_fault(name)
    if fault:
        raise ValueError(f"{shown(name)} {fault}; expected the name of a file in the same folder or below it")
    return str(PurePosixPath(name))


FileName = Annotated[str, AfterValidator(_checked)]  # a field of a record that names a file beside the record
