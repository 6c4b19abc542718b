"""The result of packaging, and the checks and files that both servers have in common."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from optkit.artifact import Artifact, Format
from optkit.artifact.tensors import DimRange, TensorSpec, batch_dim, dimension_faults
from optkit.errors import ArtifactError, StageError
from optkit.hashing import sha256_of
from optkit.messages import listed
from optkit.record import Record
from optkit.untrusted.paths import path_fault

_MODEL_FILE = {Format.ONNX: "model.onnx", Format.TORCHSCRIPT: "model.pt", Format.TENSORRT: "model.plan"}


class Packaged(Record):
    """A packaged model.

    `path` is the model's folder (Triton) or the archive (TorchServe), `files` are the files in it, and `command` starts the server.
    """

    target: str
    name: str
    version: str
    path: Path
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()
    command: str
    client: Path | None = None  # the folder of the generated client


def check_packagable(artifact: Artifact, target: str) -> None:
    """Check that the artifact's files are unchanged and that every named dimension has a range.

    Raises:
        StageError: the server does not support the format, or a named dimension has no range.
        ArtifactError: a file is missing or has changed.
    """
    taken = _MODEL_FILE.keys() - (set() if target == "Triton" else {Format.TENSORRT})
    if artifact.format not in taken:
        served = listed(sorted(taken))
        raise StageError(
            f"{artifact.path.name}: is {artifact.format}; expected {served} for {target}. "
            f"Add an export-onnx or export-torchscript step and package its artifact."
        )
    if fault := path_fault(artifact.path):
        raise ArtifactError(f"{artifact.path}: {fault}; expected a part of the artifact. Make the artifact again.")
    if sha256_of(*artifact.all_files) != artifact.sha256:
        raise ArtifactError(f"{artifact.path}: has changed since the artifact was made. Make the artifact again.")
    faults = dimension_faults(artifact.inputs, artifact.dims)
    if faults:
        raise StageError(f"{artifact.path.name}: {'; '.join(faults)}")


def model_files(artifact: Artifact) -> dict[str, Path]:
    """Return name in the package -> file: the model under the server's standard name, and its external data.

    Raises:
        ArtifactError: external data is not a regular file in the model's folder, or has the same name as the model.
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


class ModelContract(Protocol):
    """Inputs, outputs and dimensions of an artifact or a function."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs."""
        ...

    @property
    def dims(self) -> Mapping[str, DimRange]:
        """The ranges of the named dimensions."""
        ...


def shared_batch(model: ModelContract) -> tuple[str | None, str | None]:
    """Return the batch dimension that requests can share and None, or None and the reason why there is no such dimension."""
    batch = batch_dim(model.inputs)
    if batch is None:
        return None, "the inputs have no common batch dimension"
    for spec in model.outputs:
        if spec.shape[:1] != (batch,):
            return None, f"output {spec.name!r} is {spec.type_text}, which does not start with {batch!r}"
    return batch, None
