"""The history of a recipe: one line of JSON for each run that has measurements, oldest first."""

import json
import logging
import os
import subprocess
from pathlib import Path
from typing import ClassVar

from pydantic import ValidationError

from optkit.benchmark import Machine
from optkit.errors import ArtifactError, OutputError
from optkit.pipeline.records import RunRecord
from optkit.record import Document, Record, faults
from optkit.system.lock import locked_file
from optkit.untrusted.documents import parse_json
from optkit.untrusted.paths import exists, path_fault
from optkit.untrusted.reading import read_bytes

logger = logging.getLogger(__name__)

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

    @property
    def measured(self) -> list[tuple[str, dict[int, float]]]:
        """The measured latencies, which no two benchmarks have in common."""
        return [(variant.name, variant.p50_ms) for variant in self.variants]


def machine_name(machine: Machine) -> str:
    """Return the facts of a machine that latency depends on, as one name."""
    return f"{machine.cpu}, {machine.cores} cores" + (f", {machine.gpu}" if machine.gpu else "")


def add_to_history(path: Path, entry: HistoryEntry) -> list[HistoryEntry]:
    """Add a run to a history, unless it has the run's measurements already; return every run of it.

    A run that was killed before its line was written gets it when the next run finds its benchmark. The start of a line, which a killed run
    left at the end, is removed.

    Raises:
        OutputError: the file cannot be written.
        ArtifactError: a line is no entry of this version's; names it.
    """
    line = json.dumps(entry.to_dict(), allow_nan=False, separators=(",", ":")) + "\n"
    if exists(path) and (fault := path_fault(path)):
        raise OutputError(f"{path}: cannot be written ({fault})")
    with locked_file(path):
        known = read_history(path)
        if any(past.measured == entry.measured for past in known):
            return known
        try:
            with path.open("ab") as stream:
                stream.truncate(_whole(path.read_bytes()))
                stream.write(line.encode())
        except OSError as e:
            raise OutputError(f"{path}: cannot be written ({e.strerror or e})") from e
    return [*known, entry]


def _whole(content: bytes) -> int:
    """Return the length of the lines that have an end."""
    return content.rfind(b"\n") + 1


def read_history(path: Path) -> list[HistoryEntry]:
    """Return every run of the history; none where there is no file. The start of a line at the end is left out, with a warning.

    Raises:
        ArtifactError: a line is not an entry of this version; the message names the line.
    """
    if not exists(path):
        return []
    content = read_bytes(path, "history", MAX_BYTES)
    try:
        lines = content[: _whole(content)].decode().splitlines()
    except UnicodeDecodeError as e:
        raise ArtifactError(f"{path}: cannot be read as history ({e})") from e
    if len(content) > _whole(content):
        logger.warning(
            "%s: its last line has no end, because the process that wrote it was killed; it is left out", path
        )
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
