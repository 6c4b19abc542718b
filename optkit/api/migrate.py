"""From a TorchServe archive to a Triton repository."""

from pathlib import Path

from optkit.api.arguments import Dims, Inputs, StrPath, as_dims, as_inputs
from optkit.api.package import PackageRecord
from optkit.artifact import Artifact
from optkit.artifact.findings import BatchIndependence
from optkit.checks import check_batch_independence
from optkit.data import Samples
from optkit.runners import open_runner
from optkit.serving import Packaged, package_triton
from optkit.serving.migrate.archive import open_mar
from optkit.serving.migrate.repository import TorchServeBatching, package_handler, plain_model
from optkit.system.temporary import temporary_folder


def migrate(
    archive: StrPath,
    repository: StrPath,
    *,
    name: str | None = None,
    inputs: Inputs | None = None,
    dims: Dims | None = None,
    batching: bool = True,
    force: bool = False,
) -> PackageRecord:
    """Turn an archive into a model of a Triton repository.

    A model whose handler only hands tensors on becomes a plain ONNX or TorchScript model, and is batched only when that is proven to change no
    answer. Any other becomes a Python model that runs the handler.

    Args:
        archive: a .mar file; a config.properties beside it is read too.
        repository: the folder of models; made if need be.
        name: of the model; None takes the archive's.
        inputs: of a TorchScript file of which nothing else tells them.
        dims: ranges of named dimensions, likewise.
        batching: whether the server may put requests together, where TorchServe did.
        force: replace a model of this name.

    Raises:
        OptkitError: the archive cannot be opened or turned; nothing was written.
    """
    with temporary_folder() as folder:
        mar = open_mar(Path(archive).absolute(), folder)
        asked = TorchServeBatching.of(mar, batching=batching)
        artifact = plain_model(mar, as_dims(dims), as_inputs(inputs))
        if artifact is None:
            return PackageRecord(packages=(package_handler(mar, Path(repository), asked, name, force=force),))
        return PackageRecord(packages=(_plain(artifact, Path(repository), asked, name or mar.name, force=force),))


def _plain(artifact: Artifact, repository: Path, batching: TorchServeBatching, name: str, *, force: bool) -> Packaged:
    settings = batching.serving(name)
    independence: BatchIndependence | None = None
    if settings.batches:
        with open_runner(artifact) as runner:
            independence = check_batch_independence(runner, Samples(artifact.inputs, artifact.dims), artifact.dims)
    packaged = package_triton(
        artifact, repository, settings, name=name, independence=independence, sample=None, force=force
    )
    note = "the handler only handed tensors on: clients now send the tensors themselves, by name"
    return packaged.model_copy(update={"notes": (*packaged.notes, note)})
