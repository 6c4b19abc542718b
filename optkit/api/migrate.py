"""`optkit migrate`: convert a TorchServe archive to a Triton model repository."""

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
from optkit.system.temporary import temporary_folder
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
    """Convert a TorchServe archive to a model in a Triton model repository.

    If the handler only passes tensors to the model, the result is an ONNX or TorchScript model; it is batched only after a check that
    batching does not change the outputs. Otherwise the result is a Python model that runs the handler.

    Args:
        archive: TorchServe archive: a .mar file, a .tar.gz file, or a folder.
        repository: Triton model repository; it is created if it does not exist.
        name: name of the model on the server; None uses the name in the archive.
        inputs: inputs of a TorchScript model that does not declare them.
        dims: range of each named dimension as (min, opt, max); needed only if the archive declares none.
        config: config.properties of the server; None uses the one in the folder of the archive, if it exists.
        batching: let the server batch requests, if TorchServe did.
        force: replace an existing model with this name.

    Raises:
        OptkitError: the archive cannot be opened or converted; nothing was written.
    """
    with temporary_folder() as folder:
        mar = open_mar(Path(archive).absolute(), folder)
        torchserve_batching = TorchServeBatching.of(mar, _config(mar.archive, config), batching=batching)
        artifact = plain_model(mar, as_dims(dims), as_inputs(inputs))
        if artifact is None:
            return PackageRecord(
                packages=(package_handler(mar, Path(repository), torchserve_batching, name, force=force),)
            )
        return PackageRecord(
            packages=(
                _package_plain_model(artifact, Path(repository), torchserve_batching, name or mar.name, force=force),
            )
        )


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


def _package_plain_model(
    artifact: Artifact, repository: Path, batching: TorchServeBatching, name: str, *, force: bool
) -> Packaged:
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
    note = "the handler only passed tensors to the model: clients now send the tensors directly, by name"
    return packaged.model_copy(update={"notes": (*packaged.notes, note)})
