"""From a TorchServe archive to a Triton repository."""

import tempfile
from pathlib import Path

from optkit.api.arguments import Dims, Inputs, StrPath, as_dims, as_inputs
from optkit.api.package import PackageRecord
from optkit.artifact import Artifact
from optkit.artifact.findings import BatchIndependence
from optkit.checks import check_batch_independence
from optkit.data import Samples
from optkit.errors import ArtifactError
from optkit.runners import open_runner, why_not_runnable
from optkit.serving import Packaged, make_golden, package_triton
from optkit.serving.migrate.archive import open_mar
from optkit.serving.migrate.repository import TorchServeBatching, package_handler, plain_model
from optkit.untrusted.paths import path_fault


def migrate(
    archive: StrPath,
    repository: StrPath,
    *,
    name: str | None = None,
    inputs: Inputs | None = None,
    dims: Dims | None = None,
    config: StrPath | None = None,
    batching: bool = True,
    force: bool = False,
) -> PackageRecord:
    """Turn an archive into a model of a Triton repository.

    A model whose handler only hands tensors on becomes a plain ONNX or TorchScript model, and is batched only when that is proven to change no
    answer. Any other becomes a Python model that runs the handler.

    Args:
        archive: a .mar file, a .tar.gz file, or a folder, as torch-model-archiver makes them.
        repository: the folder of models; made if need be.
        name: of the model; None takes the archive's.
        inputs: of a TorchScript file of which nothing else tells them.
        dims: ranges of named dimensions, likewise.
        config: the config.properties of the server; None takes the one beside the archive, if there is one.
        batching: whether the server may put requests together, where TorchServe did.
        force: replace a model of this name.

    Raises:
        OptkitError: the archive cannot be opened or turned; nothing was written.
    """
    with tempfile.TemporaryDirectory(prefix="optkit-mar-") as folder:
        mar = open_mar(Path(archive).absolute(), Path(folder))
        asked = TorchServeBatching.of(mar, _config(mar.archive, config), batching=batching)
        artifact = plain_model(mar, as_dims(dims), as_inputs(inputs))
        if artifact is None:
            return PackageRecord(packages=(package_handler(mar, Path(repository), asked, name, force=force),))
        return PackageRecord(packages=(_plain(artifact, Path(repository), asked, name or mar.name, force=force),))


def _config(archive: Path, config: StrPath | None) -> Path:
    """Return the config.properties: the given one, which must exist, or the one beside the archive.

    Raises:
        ArtifactError: the given one is no file.
    """
    if config is None:
        return archive.with_name("config.properties")
    path = Path(config).expanduser().absolute()
    if fault := path_fault(path):
        raise ArtifactError(f"--config {path}: {fault}; expected a config.properties")
    return path


def _plain(artifact: Artifact, repository: Path, batching: TorchServeBatching, name: str, *, force: bool) -> Packaged:
    settings = batching.serving(name)
    independence: BatchIndependence | None = None
    if settings.batches:
        with open_runner(artifact) as runner:
            independence = check_batch_independence(runner, Samples(artifact.inputs, artifact.dims), artifact.dims)
    samples = Samples(artifact.inputs, artifact.dims)
    packaged = package_triton(
        artifact,
        repository,
        settings,
        name=name,
        independence=independence,
        sample=None,
        golden=None if why_not_runnable(artifact) else make_golden(artifact, samples),
        force=force,
    )
    note = "the handler only handed tensors on: clients now send the tensors themselves, by name"
    return packaged.model_copy(update={"notes": (*packaged.notes, note)})
