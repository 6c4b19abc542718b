"""What packaging returns, and what both targets check and write in the same way."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from optkit.artifact import Artifact, Format, sha256_of
from optkit.errors import ArtifactError, OutputError, StageError
from optkit.paths import path_fault
from optkit.record import Record
from optkit.serving.settings import name_fault
from optkit.tensors import DimRange, TensorSpec, batch_dim, dimension_faults

_MODEL_FILE = {Format.ONNX: "model.onnx", Format.TORCHSCRIPT: "model.pt", Format.TENSORRT: "model.plan"}


class Packaged(Record):
    """A model that is ready for a server.

    `path` is the model's folder (Triton) or the archive (TorchServe), `files` what is inside, `command` starts the server.
    """

    target: str
    name: str
    version: str
    path: Path
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()
    command: str
    client: Path | None = None  # the folder of the generated client


def model_name(given: str | None, default: str) -> str:
    """Return the name of the model on the server.

    Raises:
        StageError: the default, which comes from elsewhere, cannot be one.
    """
    fault = name_fault(given or default)
    if fault:
        raise StageError(f"{fault}. Set the name in the serve entry, or use --name.")
    return given or default


def check_packagable(artifact: Artifact, target: str) -> None:
    """Check that the files are what they were when the artifact was made, and that its contract is complete.

    Raises:
        StageError: the format is not served, or a named dimension has no range.
        ArtifactError: a file is missing or has changed.
    """
    taken = _MODEL_FILE.keys() - (set() if target == "Triton" else {Format.TENSORRT})
    if artifact.format not in taken:
        served = listed(sorted(taken))
        raise StageError(
            f"{artifact.path.name}: is {artifact.format}; {target} gets {served}. "
            f"Add an export-onnx or export-torchscript step, and package its artifact."
        )
    if fault := path_fault(artifact.path):
        raise ArtifactError(f"{artifact.path}: {fault}; expected a part of the artifact. Make the artifact again.")
    if sha256_of(*artifact.all_files) != artifact.sha256:
        raise ArtifactError(f"{artifact.path}: has changed since the artifact was made. Make the artifact again.")
    faults = dimension_faults(artifact.inputs, artifact.dims)
    if faults:
        raise StageError(f"{artifact.path.name}: {'; '.join(faults)}")


def model_files(artifact: Artifact) -> dict[str, Path]:
    """Return name in the package -> file: the model under the name that servers expect, and its external data.

    Raises:
        ArtifactError: external data is not a regular file in the model's folder, or bears the model's new name.
    """
    found: dict[str, Path] = {}
    new_name = _MODEL_FILE[artifact.format]
    for name, file in zip((new_name, *artifact.files), artifact.all_files, strict=True):
        if name in found:
            raise ArtifactError(
                f"{artifact.path}: its external data {name!r} cannot be packaged; expected a file that is not called {new_name}. "
                f"Save the model with its data in one file."
            )
        found[name] = file
    return found


class Described(Protocol):
    """What has a contract: an artifact, or a function."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What it takes."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What it gives."""
        ...

    @property
    def dims(self) -> Mapping[str, DimRange]:
        """The ranges of the named dimensions."""
        ...


def shared_batch(model: Described) -> tuple[str | None, str | None]:
    """Return the dimension along which requests can be put together, or None and the reason why there is none."""
    batch = batch_dim(model.inputs)
    if batch is None:
        return None, "the inputs share no batch dimension"
    for spec in model.outputs:
        if spec.shape[:1] != (batch,):
            return None, f"output {spec.name!r} is {spec.type_text}, which does not start with {batch!r}"
    return batch, None


@contextlib.contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Make `folder` if need be and give a temporary folder in it, on the same disk, that is gone after the block.

    Raises:
        OutputError: it cannot be made or written.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file; expected a folder to write to")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".optkit-", dir=folder) as name:
            yield Path(name)
    except OSError as e:
        raise OutputError(f"{folder}: cannot be written ({e.strerror or e})") from e


def move_in(moves: Iterable[tuple[Path, Path]], old: Path) -> None:
    """Move staged files and folders to their places, in order and all of them or none; what stood there goes to the folder `old`.

    Raises:
        OSError: one could not be moved; everything stands where it stood.
    """
    with contextlib.ExitStack() as undo:
        for i, (staged, target) in enumerate(moves):
            if target.exists():
                old.mkdir(exist_ok=True)
                before = old / str(i)
                target.rename(before)
                undo.callback(before.rename, target)
            staged.rename(target)
            undo.callback(target.rename, staged)
        undo.pop_all()


def files_below(folder: Path) -> tuple[str, ...]:
    """Return every file below a folder, relative to it, sorted."""
    return tuple(sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()))


def listed(items: Iterable[object]) -> str:
    """Return `a, b and c`."""
    texts = [str(item) for item in items]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
