"""One model file checked against its passport: its content hashed again, its tensors and precision read from the file itself."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from optkit import onnx_file, user_code
from optkit.artifact import Artifact, Format, Passport, passport_path
from optkit.artifact.tensors import TensorSpec
from optkit.errors import ArtifactError, ModelError
from optkit.hashing import sha256_of
from optkit.pytorch.origins import open_origin
from optkit.pytorch.source import ModelSource, content_of
from optkit.record import Document, Record
from optkit.untrusted.paths import exists

Kind = TypeVar("Kind", bound=Document)


class Difference(Record):
    """Something that is not as a record says; `file` is relative to the verified path."""

    file: str
    what: str


@dataclass
class Findings:
    """What is found while a path is checked."""

    root: Path
    checked: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    def name(self, path: Path) -> str:
        """Return a path relative to the verified one."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    def differs(self, path: Path, what: str) -> None:
        """Note a difference."""
        self.differences.append(Difference(file=self.name(path), what=what.removeprefix(f"{path}: ").removesuffix(".")))

    def read(self, kind: type[Kind], path: Path) -> Kind | None:
        """Return a record that is as optkit wrote it; anything else is a difference."""
        try:
            found = kind.read(path)
        except ArtifactError as e:
            self.differs(path, str(e).partition(". Make the file again")[0])
            return None
        self.checked.append(self.name(path))
        return found


def verify_artifact(found: Findings, path: Path) -> Artifact | None:
    """Check a model file against its passport; return the artifact that the passport describes."""
    beside = passport_path(path)
    if not exists(beside):
        raise ArtifactError(
            f"{path}: has no passport beside it, so nothing says what it should be. Make it with optkit."
        )
    passport = found.read(Passport, beside)
    if passport is None:
        return None
    artifact = passport.artifact.model_copy(update={"path": path})
    try:
        content = sha256_of(*artifact.all_files)
    except ArtifactError as e:
        found.differs(path, str(e))
        return artifact
    found.checked += map(found.name, artifact.all_files)
    if content != artifact.sha256:
        with_data = f" with {', '.join(artifact.files)}" if artifact.files else ""
        found.differs(path, f"its content{with_data} has the SHA-256 {content}; its passport has {artifact.sha256}")
    match artifact.format:
        case Format.ONNX:
            _onnx(found, artifact)
        case Format.PYTORCH:
            _source(found, artifact)
        case _:
            found.unchecked.append(f"{found.name(path)}: its inputs and precision; {artifact.format} is not read again")
    return artifact


def _onnx(found: Findings, artifact: Artifact) -> None:
    """Read the tensors, the precision and the data files from the file itself."""
    try:
        facts = onnx_file.facts(artifact.path)
    except ArtifactError as e:
        found.differs(artifact.path, str(e))
        return
    for kind, recorded, own in (("input", artifact.inputs, facts.inputs), ("output", artifact.outputs, facts.outputs)):
        for what in _tensor_differences(kind, recorded, own):
            found.differs(artifact.path, what)
    if facts.precision is not artifact.precision:
        found.differs(artifact.path, f"computes in {facts.precision}; its passport has {artifact.precision}")
    if set(facts.files) != set(artifact.files):
        found.differs(
            artifact.path, f"names the data {_listed(facts.files)}; its passport has {_listed(artifact.files)}"
        )


def _tensor_differences(kind: str, recorded: Sequence[TensorSpec], own: Sequence[TensorSpec]) -> Iterable[str]:
    mine = {spec.name: spec for spec in own}
    if set(mine) != {spec.name for spec in recorded}:
        yield f"has the {kind}s {_listed(sorted(mine))}; its passport has {_listed(sorted(s.name for s in recorded))}"
        return
    for spec in recorded:
        there = mine[spec.name]
        fixed = zip(spec.shape, there.shape, strict=False)
        same = len(spec.shape) == len(there.shape) and all(
            a == b or isinstance(a, str) or isinstance(b, str) for a, b in fixed
        )
        if there.dtype is not spec.dtype or not same:
            yield f"{kind} {spec.name!r} is {there.type_text}; its passport has {spec.type_text}"


def _source(found: Findings, artifact: Artifact) -> None:
    """Check the code and weights that a source artifact was made of, where they are on this machine."""
    try:
        source = ModelSource.read(artifact.path)
        origin = open_origin(source.target, artifact.path.parent)
        if user_code.is_in_memory(source.target) or origin.fault():
            found.unchecked.append(f"{found.name(artifact.path)}: the code of {source.target}, which is not here")
            return
        content = content_of(source, artifact.path)
    except (ArtifactError, ModelError) as e:
        found.differs(artifact.path, str(e))
        return
    if content != source.content_sha256:
        found.differs(artifact.path, f"the code or the weights of {source.target} have changed since it was made")
    elif read := user_code.changed((source.reads,), (origin.target,)):
        found.differs(artifact.path, f"{read}, which the code of {source.target} reads, has changed since it was made")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
