"""Packaging of an artifact for Triton: the model's folder with configuration, version and warm-up data."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from optkit.artifact import Artifact, Format
from optkit.artifact.findings import BatchIndependence
from optkit.artifact.tensors import DimRange, Feed, TensorSpec
from optkit.errors import StageError
from optkit.messages import listed
from optkit.serving.clients.folder import check_writable
from optkit.serving.golden import Golden
from optkit.serving.names import model_name
from optkit.serving.packaged import Packaged, check_packagable, model_files
from optkit.serving.settings import TritonModelSettings, TritonServing
from optkit.serving.staging import writing
from optkit.serving.triton.command import serve_command
from optkit.serving.triton.config import model_config, warmup_files, warmup_of
from optkit.serving.triton.contract import TritonContract, triton_contract
from optkit.serving.triton.folder import RepositoryModel, write_model
from optkit.serving.triton.generated_client import write_triton_client
from optkit.serving.triton.plan import as_built, describe_plans, plan_files


def package_triton(
    artifact: Artifact,
    repository: Path,
    settings: TritonServing,
    *,
    name: str,
    independence: BatchIndependence | None,
    sample: Feed | None,
    golden: Golden | None = None,
    force: bool = False,
    others: Sequence[Artifact] = (),
) -> Packaged:
    """Add one version of a model to a repository; other models and other versions are unchanged.

    Args:
        artifact: an ONNX or TorchScript model, or a TensorRT engine.
        repository: the folder of models; created if it does not exist.
        settings: the serve entry.
        name: the name of the model if the settings have none.
        independence: the result of the check for batch independence; batching needs a passed check.
        sample: a feed for the warm-up; None means zeros.
        golden: a feed with the artifact's outputs, stored for `optkit smoke`.
        force: replace an existing version, configuration and warm-up data. Hand edits of the configuration are merged anyway.
        others: engines of the same model for the other GPUs of the server.

    Raises:
        StageError: the model cannot be served with these settings.
        FeedError: the sample does not fit the inputs.
        ArtifactError: a file of the artifact is missing, damaged or changed.
        OutputError: the version exists already, the existing configuration differs or has hand edits that conflict, or the folder
            cannot be written. Existing files are unchanged.
    """
    model, contract, notes = triton_model(
        artifact, settings, name=name, independence=independence, sample=sample, golden=golden, others=others
    )
    folder = repository / model.name
    with writing(repository):
        if settings.client:
            check_writable(repository, model.name)
        written, merging = write_model(repository, model, force=force)
        client, left = write_client_of(model, repository, contract, artifact.dims) if settings.client else (None, [])
    return Packaged(
        target="triton",
        name=model.name,
        version=str(settings.version),
        path=folder.absolute(),
        files=written,
        notes=(*notes, *merging, *unloaded_note(folder, settings), *left),
        command=serve_command(
            repository,
            on_gpu=artifact.format is Format.TENSORRT or settings.instances.kind == "gpu",
            cached=settings.response_cache,
        ),
        client=client,
    )


def write_client_of(
    model: RepositoryModel, repository: Path, contract: TritonContract, dims: Mapping[str, DimRange]
) -> tuple[Path | None, list[str]]:
    """Write the client of a model with its golden sample; return its folder (or None) and notes."""
    shown = model.golden.inputs if model.golden else None
    client, left = write_triton_client(repository, model.name, contract, dims, shown)
    return client, [left] if left else []


def triton_model(
    artifact: Artifact,
    settings: TritonServing,
    *,
    name: str,
    independence: BatchIndependence | None,
    sample: Feed | None,
    golden: Golden | None = None,
    others: Sequence[Artifact] = (),
) -> tuple[RepositoryModel, TritonContract, list[str]]:
    """Return one version of a model for a repository, its contract in Triton, and notes. Nothing is written.

    Raises:
        OptkitError: as `package_triton`.
    """
    name = model_name(settings.name, name)
    for one in (artifact, *others):
        check_packagable(one, "Triton")
    if artifact.torch_engine and settings.instances.kind == "gpu":
        raise StageError(
            f"{artifact.path.name}: instances.kind is gpu; expected cpu, because INT8 TorchScript runs on CPUs only. "
            f"Set instances: {{kind: cpu}}."
        )
    plans = [as_built(one) for one in (artifact, *others)] if artifact.format is Format.TENSORRT else []
    artifact = plans[0] if plans else artifact
    contract = triton_contract(artifact, settings, independence)
    warmup = warmup_of(artifact, contract, sample) if settings.warmup else None
    config = model_config(name, artifact, settings, contract, warmup)
    if plans:
        describe_plans(config, plans)
    model = RepositoryModel(
        name=name,
        version=settings.version,
        config=config,
        files=plan_files(plans) if plans else _version_files(model_files(artifact)),
        warmup={file: warmup.files[tensor] for tensor, file in warmup_files(warmup).items()} if warmup else {},
        golden=seen_by_clients(golden, artifact.inputs, artifact.outputs, contract) if golden else None,
    )
    notes = list(contract.notes)
    if warmup and not warmup.files:
        notes.append("the warm-up sends zeros, because there is no sample")
    if plans and golden is None:
        notes.append("no golden samples for optkit smoke, because the engine cannot run on this machine")
    return model, contract, notes


def _version_files(files: dict[str, Path]) -> dict[str, Path]:
    """Return the files by their names in the version folder. With external data, `model.onnx` is a folder with the model and its data."""
    first = next(iter(files))
    return {f"{first}/{name}": file for name, file in files.items()} if len(files) > 1 else files


def seen_by_clients(
    golden: Golden, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], contract: TritonContract
) -> Golden:
    """Return golden samples as clients see them: the server's names and shapes, and the rows of one request."""
    return Golden(
        _shown(golden.inputs, inputs, contract.inputs, contract.max_batch_size),
        _shown(golden.outputs, outputs, contract.outputs, contract.max_batch_size),
        golden.tolerance,
    )


def _shown(
    feed: Feed, own: Sequence[TensorSpec], served: Sequence[TensorSpec], max_batch_size: int
) -> dict[str, np.ndarray]:
    """Return a feed with the names, types and shapes of the server, which represents a scalar as [1]."""
    found = {}
    for spec, shown in zip(own, served, strict=True):
        array = feed[spec.name][:max_batch_size] if max_batch_size else feed[spec.name]
        single = len(spec.shape) == (1 if max_batch_size else 0)
        array = array.astype(shown.dtype.numpy, copy=False)  # an engine may take int32 where its model takes int64
        found[shown.name] = array.reshape(*array.shape, 1) if single else array
    return found


def unloaded_note(folder: Path, settings: TritonModelSettings) -> list[str]:
    """Return a note if the version policy does not load the written version."""
    versions = {int(part.name) for part in folder.iterdir() if part.name.isdigit() and not part.name.startswith("0")}
    if settings.version_policy.loads(settings.version, versions):
        return []
    newest = settings.version_policy.latest
    return [
        f"Triton will not load version {settings.version}: the version policy loads the latest {newest} of "
        f"{listed(sorted(versions))}"
    ]
