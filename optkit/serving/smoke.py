"""The record of a smoke test, which sends golden samples to a running server and compares the answers with the artifact's outputs."""

from typing import ClassVar

from optkit.artifact.findings import OutputParity
from optkit.record import Document, Record


class Replay(Record):
    """The comparison for one version of a model at one URL. `failure` is the reason if there was no answer."""

    model: str
    version: str
    url: str
    outputs: tuple[OutputParity, ...] = ()
    failure: str | None = None

    @property
    def fault(self) -> str | None:
        """The reason why it failed, or None. Without any compared output it failed."""
        if self.failure:
            return self.failure
        found = next((f"output {o.output!r}: {o.failure}" for o in self.outputs if o.failure), None)
        return found or (None if self.outputs else "nothing was compared")


class SmokeRecord(Document):
    """Every replay, and notes on models without golden samples."""

    schema_id: ClassVar[str] = "optkit/smoke/1"

    replays: tuple[Replay, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether there is at least one replay and all replays passed."""
        return bool(self.replays) and all(replay.fault is None for replay in self.replays)
