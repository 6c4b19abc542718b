"""An artifact and what is known about it, as records: no computation, no heavy library."""

from optkit.artifact.passport import (
    PASSPORT_SUFFIX,
    Artifact,
    Format,
    Passport,
    Precision,
    files_beside,
    passport_path,
    read_passport,
)
from optkit.hashing import hash_of, sha256_of

__all__ = [
    "PASSPORT_SUFFIX",
    "Artifact",
    "Format",
    "Passport",
    "Precision",
    "files_beside",
    "hash_of",
    "passport_path",
    "read_passport",
    "sha256_of",
]
