"""The history of a recipe: one line of JSON for each run that has measurements, oldest first."""

import json
import os
import subprocess
from pathlib import Path
from typing import ClassVar

from pydantic import ValidationError

from optkit.benchmark import Machine
from optkit.errors import ArtifactError, OutputError
from optkit.pipeline.records import RunRecord
from optkit.record import Document, Record, faults
from optkit.untrusted.documents import parse_json
from optkit.untrusted.paths import exists, path_fault
from optkit.untrusted.reading import read_text

HISTORY_FILE = "history.jsonl"
MAX_BYTES = 64 * 2**20


class PastVariant(Record):
    """One artifact of a past run."""

    name: str
    sha256: str
    size_bytes: int
    accuracy: float | None
    p50_ms: dict[int, float]  # batch -> median latency
    samples_per_s: dict[int, float]


class HistoryEntry(Document):
    """One run: one short line, so that all runs can be kept."""

    schema_id: ClassVar[str] = "optkit/history/1"

    created: str  # UTC, ISO 8601
    commit: str | None  # the commit that was checked out, if any
    recipe: str
    machine: str  # its name: processor, cores, GPU
    optkit: str
    winner: str | None
    variants: tuple[PastVariant, ...]

    @classmethod
    def of(cls, record: RunRecord) -> "HistoryEntry":
        """Return the entry of a run."""
        measured = record.bench.measurements if record.bench else ()
        return cls(
            created=record.created,
            commit=_commit(),
            recipe=record.recipe,
            machine=machine_name(record.machine),
            optkit=record.optkit,
            winner=record.winner.artifact if record.winner else None,
            variants=tuple(
                PastVariant(
                    name=step.name,
                    sha256=step.sha256 or "",
                    size_bytes=step.size_bytes or 0,
                    accuracy=step.accuracy.value if step.accuracy else None,
                    p50_ms={m.batch: m.p50_ms for m in measured if m.artifact == step.name},
                    samples_per_s={m.batch: m.samples_per_s for m in measured if m.artifact == step.name},
                )
                for step in (record.source, *record.steps)
                if any(m.artifact == step.name for m in measured)
            ),
        )


def machine_name(machine: Machine) -> str:
    """Return the facts of a machine that latency depends on, as one name."""
    return f"{machine.cpu}, {machine.cores} cores" + (f", {machine.gpu}" if machine.gpu else "")


def append_history(path: Path, entry: HistoryEntry) -> None:
    """Add one line to the history.

    Raises:
        OutputError: the file cannot be written.
    """
    line = json.dumps(entry.to_dict(), allow_nan=False, separators=(",", ":")) + "\n"
    if exists(path) and (fault := path_fault(path)):
        raise OutputError(f"{path}: cannot be written ({fault})")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line)  # one write: lines of two runs that end at the same time do not mix
    except OSError as e:
        raise OutputError(f"{path}: cannot be written ({e.strerror or e})") from e


def read_history(path: Path) -> list[HistoryEntry]:
    """Return every run of the history, or none if there is no file.

    Raises:
        ArtifactError: a line is not an entry of this version; the message names the line.
    """
    if not exists(path):
        return []
    lines = read_text(path, "history", MAX_BYTES).splitlines()
    found = []
    for i, line in enumerate(lines, 1):
        try:
            content = parse_json(line, f"{path}:{i}", ArtifactError)
            schema = content.pop("schema", None) if isinstance(content, dict) else None
            if schema != HistoryEntry.schema_id:
                raise ArtifactError(
                    f"{path}:{i}: schema {schema!r}; this version of optkit reads {HistoryEntry.schema_id!r}. "
                    "Remove the line, or start a new file."
                )
            found.append(HistoryEntry.model_validate(content))
        except ValidationError as e:
            raise ArtifactError(f"{path}:{i}: {'; '.join(faults(e))}. Remove the line.") from e
    return found


def _commit() -> str | None:
    """Return the checked-out commit: from CI's GITHUB_SHA, otherwise from git in the working directory."""
    named = os.environ.get("GITHUB_SHA")
    if named:
        return named
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
