"""The record of a model that optkit packaged for Triton: `optkit.json` beside config.pbtxt. The server ignores it."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from optkit.artifact.findings import Tolerance
from optkit.errors import ArtifactError
from optkit.record import Document, Record
from optkit.untrusted.paths import FileName, is_file

FILE = "optkit.json"


class GoldenFile(Record):
    """The file with the golden samples of one version, relative to the model's folder, and the tolerance for answers."""

    file: FileName
    tolerance: Tolerance


class TritonRecord(Document):
    """The configuration as optkit wrote it, the golden samples of each version, and the hash of every file."""

    schema_id: ClassVar[str] = "optkit/triton-model/2"
    sealed: ClassVar[bool] = True

    config: str
    golden: dict[str, GoldenFile] = Field(default_factory=dict)
    files: dict[FileName, str] = Field(default_factory=dict)  # what optkit wrote, of all versions: name -> hash


def read_record(model: Path) -> TritonRecord | None:
    """Read the record in a model's folder, or return None if there is none.

    Raises:
        ArtifactError: the record cannot be read.
    """
    path = model / FILE
    return TritonRecord.read(path) if is_file(path) else None


def record_or_none(model: Path) -> TritonRecord | None:
    """Read the record in a model's folder, or return None if there is none or it cannot be read."""
    try:
        return read_record(model)
    except ArtifactError:
        return None
