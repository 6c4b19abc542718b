"""What optkit remembers of a model that it packaged for Triton: `optkit.json` beside config.pbtxt, which the server ignores."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from optkit.artifact.findings import Tolerance
from optkit.errors import ArtifactError
from optkit.record import Document, Record
from optkit.untrusted.paths import FileName

FILE = "optkit.json"


class GoldenFile(Record):
    """Where the golden samples of one version lie, relative to the model's folder, and how near an answer must be."""

    file: FileName
    tolerance: Tolerance


class TritonRecord(Document):
    """The configuration as optkit wrote it, and the golden samples of each version."""

    schema_id: ClassVar[str] = "optkit/triton-model/1"

    config: str
    golden: dict[str, GoldenFile] = Field(default_factory=dict)


def read_record(model: Path) -> TritonRecord | None:
    """Read the record of a model's folder; None where there is none.

    Raises:
        ArtifactError: it cannot be read.
    """
    path = model / FILE
    return TritonRecord.read(path) if path.is_file() else None


def record_or_none(model: Path) -> TritonRecord | None:
    """Read the record of a model's folder; one that cannot be read counts as none."""
    try:
        return read_record(model)
    except ArtifactError:
        return None
