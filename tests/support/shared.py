"""What the workers of one run share: locks, and the artifacts of the zoo."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from optkit.artifact import Artifact
from optkit.hashing import hash_of
from optkit.stages import Stage
from tests.support import zoo


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a path, which one process has at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Zoo:
    """Artifacts of the zoo in one folder; each is made by the worker that needs it first."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.made: dict[str, Artifact] = {}

    def make(self, sample: str, *stages: Stage) -> Artifact:
        """Return the artifact at the end of a chain. Do not change its files."""
        steps = [stage.model_dump(mode="json") for stage in stages]
        key = f"{sample}-{hash_of({'steps': steps})[:16]}"
        if key not in self.made:
            record = self.folder / f"{key}.json"
            with locked(self.folder / f"{key}.lock"):
                if not record.exists():
                    record.write_text(self._made(self.folder / key, sample, *stages).model_dump_json())
            self.made[key] = Artifact.model_validate_json(record.read_text())
        return self.made[key]

    def _made(self, folder: Path, sample: str, *stages: Stage) -> Artifact:
        folder.mkdir(exist_ok=True)
        if not stages:
            return {**zoo.SAMPLES, **zoo.COMPILED}[sample].source(folder)
        return stages[-1].run(self.make(sample, *stages[:-1]), folder)
