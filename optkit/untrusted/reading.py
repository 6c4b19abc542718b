"""Reading of a file into memory, up to a limit: a path that a user or another file gives may lead to anything."""

from pathlib import Path

from optkit.errors import ArtifactError, OptkitError
from optkit.untrusted.paths import path_fault

MAX_CONFIG_BYTES = 128 * 2**10  # of a config.pbtxt
MAX_CODE_BYTES = 16 * 2**20  # of a model.py
MAX_BODY_BYTES = 2**30  # of a request
MAX_NAMES_BYTES = 16 * 2**20  # of a list of classes


def read_bytes(path: Path, what: str, limit: int, kind: type[OptkitError] = ArtifactError) -> bytes:
    """Return the content of a regular file.

    Args:
        path: links are followed.
        what: is expected, as `YAML`; for messages.
        limit: the largest size in bytes.
        kind: the error to raise.

    Raises:
        OptkitError: of this kind. It is not a regular file, cannot be read, or is larger than the limit.
    """
    if fault := path_fault(path):
        raise kind(f"{path}: cannot be read as {what} ({fault})")
    try:
        with path.open("rb") as stream:
            content = stream.read(limit + 1)
    except OSError as e:
        raise kind(f"{path}: cannot be read as {what} ({e.strerror or e})") from e
    if len(content) > limit:
        raise kind(f"{path}: cannot be read as {what} (it has more than {limit} bytes, the most that optkit reads)")
    return content


def read_text(path: Path, what: str, limit: int, kind: type[OptkitError] = ArtifactError) -> str:
    """Return the text of a regular file in UTF-8.

    Raises:
        OptkitError: as `read_bytes`, and where it is not UTF-8.
    """
    try:
        return read_bytes(path, what, limit, kind).decode("utf-8")
    except UnicodeDecodeError as e:
        raise kind(f"{path}: cannot be read as {what} (it is not UTF-8: {e.reason} at byte {e.start})") from e
