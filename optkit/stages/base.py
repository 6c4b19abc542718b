"""Stage: makes one artifact from one artifact, in a folder. It never measures and never compares."""

import abc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from pydantic import PrivateAttr

from optkit.artifact import Artifact, Format, Precision, files_beside
from optkit.artifact.tensors import Feed, Sizes, TensorSpec, example_sizes
from optkit.data import Feeds, Samples, data_fault
from optkit.errors import StageError, interrupted
from optkit.hashing import sha256_of
from optkit.record import Record
from optkit.untrusted.names import StepName
from optkit.untrusted.paths import is_file

NO_CALIBRATION = "no calibration data; name some as data.calibration: file.py:function"


class Stage(Record, abc.ABC):
    """One step of a chain; its fields are the recipe's keys and the command's options.

    A subclass adds `stage: Literal["its-key"]`, its options, and `make`.
    """

    accepts: ClassVar[frozenset[Format]]
    produces: ClassVar[Format]
    filename: ClassVar[str]

    stage: str
    name: StepName | None = None  # of the step and its folder; None: the key of the stage
    after: str | None = None  # the step whose artifact it uses; None: the step before it
    optional: bool = False  # skipped with its reason where a package is missing

    _known: Feeds | None = PrivateAttr(default=None)

    @property
    def step(self) -> str:
        """The name of the step in a recipe."""
        return self.name or self.stage

    def requires(self) -> Sequence[str]:
        """Return the modules that the stage imports, so that a plan can report missing ones early."""
        return ()

    def versions(self) -> Mapping[str, str]:
        """Return library -> version for libraries that only this stage uses; with another version the step is made again."""
        return {}

    def hardware(self) -> Mapping[str, str]:
        """Return what of the machine the artifact depends on; on another machine the step is made again."""
        return {}

    @property
    def data(self) -> str | None:
        """The data source that the stage reads; its artifact depends on it."""
        return None

    def with_feeds(self, known: Feeds | None) -> Self:
        """The stage with feeds that its caller reads too: where these are its data, the user's function is not called again."""
        copy = self.model_copy()
        copy._known = known
        return copy

    def feeds(self, source: Artifact) -> Feeds | None:
        """The feeds of the stage's data, for the inputs of its source; None where it reads none."""
        known = self._known
        if known is not None and known.target == self.data and known.inputs == source.inputs:
            return known
        return Feeds(self.data, source.inputs) if self.data else None

    def example(self, source: Artifact, sizes: Sizes | None = None) -> Feed:
        """Return an example for an exporter: of the real samples where its caller has some, else random values; None uses small sizes."""
        known = self._known if self._known is not None and self._known.inputs == source.inputs else None
        return Samples(source.inputs, source.dims, known, source.random).at(sizes or example_sizes(source.dims))

    def faults(self, calibration: str | None, evaluation: str | None) -> Iterator[str]:  # noqa: ARG002 - for limits on accuracy
        """Yield what the step needs and a recipe does not give.

        Args:
            calibration: the data source of the recipe.
            evaluation: the target of its evaluation function.
        """
        if self.data and self.data != calibration and (fault := data_fault(self.data)):
            yield fault

    def with_data(self, base: Path, calibration: str | None) -> Self:  # noqa: ARG002 - for the stages that calibrate
        """Return the stage with its paths made absolute from `base`, and with the recipe's data where it has no own data."""
        return self

    def with_earlier(self, made: Path) -> Self:  # noqa: ARG002 - for the stages that calibrate
        """Return the stage with reusable parts of the artifact that it made before; `made` need not exist."""
        return self

    @abc.abstractmethod
    def make(self, source: Artifact, path: Path) -> Artifact:
        """Write the artifact to `path` and return it; use `self.artifact` to build it.

        Raises:
            StageError: the artifact could not be made.
        """

    def run(self, source: Artifact, out_dir: Path, filename: str | None = None) -> Artifact:
        """Make the artifact in `out_dir`, which is created, and check that it has the declared format.

        Args:
            source: an artifact in a format that the stage accepts.
            out_dir: the stage's own folder.
            filename: the name of the artifact; None uses the stage's own.

        Raises:
            StageError: the source has another format, or the artifact could not be made. Files may be left in `out_dir`.
        """
        if source.format not in self.accepts:
            wanted = " or ".join(sorted(self.accepts))
            raise StageError(f"{self.step}: accepts {wanted}, but {source.path.name} is {source.format}")
        out_dir.mkdir(parents=True, exist_ok=True)
        try:
            artifact = self.make(source, out_dir.absolute() / (filename or self.filename))
        except StageError as e:
            if interrupted(e):
                raise KeyboardInterrupt from e
            raise StageError(f"{self.step}: {e}") from e
        if artifact.format is not self.produces or not is_file(artifact.path):
            raise AssertionError(f"{type(self).__name__} declares {self.produces} but made {artifact}")
        return artifact

    def artifact(
        self,
        source: Artifact,
        path: Path,
        precision: Precision,
        *,
        outputs: Sequence[TensorSpec] | None = None,
        files: Sequence[str] = (),
        notes: Sequence[str] = (),
        sha256: str | None = None,
    ) -> Artifact:
        """Return the artifact at `path` with the contract of its source; pass `sha256` where it is already known."""
        return Artifact(
            path=path,
            format=self.produces,
            precision=precision,
            inputs=source.inputs,
            outputs=tuple(outputs or source.outputs),
            dims=source.dims,
            sha256=sha256 or sha256_of(path, *files_beside(path, files)),
            parent_sha256=source.sha256,
            files=tuple(files),
            notes=tuple(notes),
            random=source.random,
        )
