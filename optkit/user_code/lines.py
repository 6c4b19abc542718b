"""The user's lines in an error, in a traceback as text, and on the stack."""

import os
import re
import sysconfig
import traceback
from pathlib import Path

_OTHERS = (str(Path(__file__).parent.parent), sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
_LINE = re.compile(r'File "([^"]+)", line (\d+)|# ([^\s:]+\.py):(\d+)')
_PRIVATE = re.compile(r"\boptkit_user_[0-9a-f]+\.")  # before the name of a module; see `loader`


def is_users(filename: str) -> bool:
    """Whether a file or folder belongs to the user: it is not installed, and not part of Python or optkit."""
    installed = any(part in ("site-packages", "dist-packages") for part in Path(filename).parts)
    return not (installed or f"{filename}{os.sep}".startswith((*(f"{folder}{os.sep}" for folder in _OTHERS), "<")))


def is_pythons(filename: str) -> bool:
    """Whether a file belongs to Python's own library."""
    installed = any(part in ("site-packages", "dist-packages") for part in Path(filename).parts)
    return filename.startswith("<frozen") or (filename.startswith(_OTHERS[1:]) and not installed)


def describe(error: BaseException) -> str:
    """Return a description of an error in the user's code in one line: `file.py:12: ValueError: text`."""
    text = [line.strip() for line in _PRIVATE.sub("", str(error)).splitlines() if line.strip()]
    message = " ".join(
        text[:2] if text and text[0].endswith(":") else text[:1]
    )  # "Found these conflicts:" alone is useless
    what = f"{type(error).__name__}: {message}" if message else type(error).__name__
    frames = [f for f in traceback.extract_tb(error.__traceback__) if is_users(f.filename)]
    return f"{frames[-1].filename}:{frames[-1].lineno}: {what}" if frames else what


def last_line_in(text: str) -> str | None:
    """Return the last line of the user's code in a traceback or in the text of a graph, as `file.py:12`."""
    found = [(m[1] or m[3], m[2] or m[4]) for m in _LINE.finditer(text)]
    users = [f"{file}:{line}" for file, line in found if is_users(file)]
    return users[-1] if users else None


def current_line() -> str | None:
    """Return the innermost running line of the user's code, as `file.py:12`."""
    frames = [f for f in traceback.extract_stack() if is_users(f.filename)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None
