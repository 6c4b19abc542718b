"""What a smoke test found: golden samples replayed against a running server, and its answers compared with the artifact's own."""

from typing import ClassVar

from optkit.artifact.findings import OutputParity
from optkit.record import Document, Record


class Replay(Record):
    """One version of a model, asked at one URL; `failure` says why there was no answer to compare."""

    model: str
    version: str
    url: str
    outputs: tuple[OutputParity, ...] = ()
    failure: str | None = None

    @property
    def fault(self) -> str | None:
        """Why it did not pass; None when it did. Nothing compared is no pass."""
        if self.failure:
            return self.failure
        found = next((f"output {o.output!r}: {o.failure}" for o in self.outputs if o.failure), None)
        return found or (None if self.outputs else "nothing was compared")


class SmokeRecord(Document):
    """Every replay, and what could not be asked."""

    schema_id: ClassVar[str] = "optkit/smoke/1"

    replays: tuple[Replay, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether everything that was asked was answered as by the artifact, and something was."""
        return bool(self.replays) and all(replay.fault is None for replay in self.replays)
