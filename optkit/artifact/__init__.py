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

__all__ = [
    "PASSPORT_SUFFIX",
    "Artifact",
    "Format",
    "Passport",
    "Precision",
    "files_beside",
    "passport_path",
    "read_passport",
]
