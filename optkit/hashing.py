"""SHA-256 of files and values, for passports and for the reuse of results."""

import hashlib
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optkit.errors import ArtifactError


def sha256_of(*files: Path) -> str:
    """Return the SHA-256 of one file, or of the hashes of several files, as hexadecimal text.

    Raises:
        ArtifactError: a file cannot be read, or is a FIFO or a device, which may be endless.
    """
    digests = []
    for file in files:
        try:
            if not stat.S_ISREG(file.stat().st_mode):
                raise ArtifactError(f"{file}: is not a regular file; expected a regular file to compute the SHA-256 of")
            with file.open("rb") as stream:
                digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
        except OSError as e:
            raise ArtifactError(f"{file}: cannot be read ({e.strerror or e})") from e
    return digests[0] if len(digests) == 1 else hash_of({"files": digests})


def hash_of(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a JSON value, independent of the order of its keys."""
    import json

    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()
