"""Java properties files, such as TorchServe's config.properties: read with their full syntax, and changed without losing other lines."""

import re
from collections.abc import Mapping
from pathlib import Path

import javaproperties

from optkit.errors import ArtifactError
from optkit.untrusted.reading import read_bytes

MAX_BYTES = 2**20
_WHAT = "a Java properties file"
_ENCODING = "iso-8859-1"  # Java reads a properties file as Latin-1
_LINE_END = re.compile(r"\r\n|\r|\n")
_CONTINUED = re.compile(r"(?<!\\)(?:\\\\)*\\\r?\n\Z")  # the next line belongs to the last one


def read_properties(path: Path) -> dict[str, str]:
    """Read key -> value. If a key occurs twice, the last value counts, as in Java.

    Raises:
        ArtifactError: the file cannot be read, or holds an invalid escape sequence.
    """
    return {key: value for key, value, _ in _entries(path)}


def line_of(path: Path, key: str) -> int:
    """Return the line on which the value of a key begins that counts: the last one.

    Raises:
        ArtifactError: the file cannot be read, or holds an invalid escape sequence.
    """
    return next((line for found, _, line in reversed(_entries(path)) if found == key), 1)


def _entries(path: Path) -> list[tuple[str, str, int]]:
    """Return key, value and line of each entry."""
    found: list[tuple[str, str, int]] = []
    line = 1
    content = read_bytes(path, _WHAT, MAX_BYTES)
    try:
        for element in javaproperties.parse(content):
            if isinstance(element, javaproperties.KeyValue):
                found.append((element.key, element.value, line))
            line += len(_LINE_END.findall(element.source))
    except ValueError as e:
        raise ArtifactError(f"{path}: cannot be read as {_WHAT} (line {line}: {e}). Correct it.") from e
    return found


def with_properties(content: bytes, values: Mapping[str, str]) -> bytes:
    """Return the content of a properties file with these values at its end, instead of earlier values of the same keys.

    Comments, other keys and their formatting stay as they are.
    """
    kept = "".join(
        element.source
        for element in javaproperties.parse(content)
        if not (isinstance(element, javaproperties.KeyValue) and element.key in values)
    )
    if kept and not kept.endswith("\n"):
        kept += "\n"
    if _CONTINUED.search(kept):
        kept += "\n"
    return (kept + "".join(_line(key, value) for key, value in values.items())).encode(_ENCODING)


def _line(key: str, value: str) -> str:
    """Return one line. javaproperties also escapes `:`, `=`, `#`, `!` and blanks within a value, which need no escape there."""
    escaped = re.sub(r"(?!\A)\\([:=#! ])", r"\1", javaproperties.escape(value))
    return f"{javaproperties.escape(key)}={escaped}\n"
