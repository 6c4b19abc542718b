"""What a command packages: files and functions that somebody has, each into a model repository or a model store."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from optkit.artifact import Artifact, Format, read_passport
from optkit.artifact.tensors import DimRange
from optkit.check import check_batch_independence
from optkit.data import Feeds, Samples
from optkit.errors import OutputError
from optkit.record import Document
from optkit.runners import open_runner
from optkit.serving import (
    ArtifactServing,
    Packaged,
    TritonPythonServing,
    package_function,
)
from optkit.serving.package_artifact import package


class PackageRecord(Document):
    """What one command packaged."""

    schema_id: ClassVar[str] = "optkit/package/1"

    packages: tuple[Packaged, ...]


def package_files(
    artifacts: Sequence[Artifact], folder: Path, serving: ArtifactServing, data: str | None, force: bool
) -> PackageRecord:
    """Package files that somebody has, each under the name of its file where the settings give none.

    Batch independence is taken from the passport, and checked now where it holds none.

    Raises:
        OptkitError: one of them cannot be packaged; those before it are there.
    """
    if len(artifacts) > 1 and all(artifact.format is Format.TENSORRT for artifact in artifacts):
        artifacts, others = artifacts[:1], artifacts[1:]  # one model for several GPUs
    else:
        others = ()
    names = [serving.name or artifact.path.name.partition(".")[0] for artifact in artifacts]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise OutputError(
            f"{folder}: {names.count(twice)} models would be named {twice!r}. Package them one by one with --name."
        )
    done = []
    for artifact, name in zip(artifacts, names, strict=True):
        samples = Samples(artifact.inputs, artifact.dims, Feeds(data, artifact.inputs) if data else None)
        passport = read_passport(artifact.path)
        independence = passport.batch_independence if passport else None
        if independence is None and serving.batches and artifact.format is not Format.TENSORRT:
            with open_runner(artifact) as runner:
                independence = check_batch_independence(runner, samples, artifact.dims)
        done.append(
            package(
                artifact,
                folder,
                serving,
                name=name,
                independence=independence,
                samples=samples,
                force=force,
                others=others,
            )
        )
    return PackageRecord(packages=tuple(done))


def package_python(
    serving: TritonPythonServing, folder: Path, dims: Mapping[str, DimRange], force: bool
) -> PackageRecord:
    """Prove a function and package it as a Python model.

    Raises:
        OptkitError: it cannot be packaged so, or not be written; nothing was changed.
    """
    samples = Samples(serving.inputs, dims, Feeds(serving.data, serving.inputs) if serving.data else None)
    return PackageRecord(packages=(package_function(serving, folder, dims, samples, force=force),))
