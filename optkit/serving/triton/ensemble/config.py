"""Packaging of an ensemble: a model for each part, and the ensemble that connects them."""

from pathlib import Path
from typing import TYPE_CHECKING

from optkit.artifact.tensors import batch_dim
from optkit.errors import StageError
from optkit.serving.clients.folder import check_writable
from optkit.serving.golden import Golden
from optkit.serving.packaged import Packaged
from optkit.serving.settings import TritonServing
from optkit.serving.staging import writing
from optkit.serving.triton.command import serve_command
from optkit.serving.triton.config import describe_tensor
from optkit.serving.triton.contract import TritonContract, triton_contract
from optkit.serving.triton.ensemble.package import Ensemble, EnsembleSettings, Node
from optkit.serving.triton.folder import RepositoryModel, write_models
from optkit.serving.triton.package import seen_by_clients, triton_model, write_client_of
from optkit.serving.triton.python_backend.folder import python_config, python_files
from optkit.serving.triton_fields import VersionPolicy

if TYPE_CHECKING:
    from tritonclient.grpc import model_config_pb2 as schema


def package_ensemble(
    ensemble: Ensemble, settings: EnsembleSettings, repository: Path, golden: Golden, *, force: bool
) -> Packaged:
    """Write the ensemble and its parts, all or none. The name of a part's model is ENSEMBLE_PART.

    Raises:
        StageError: a part cannot be served, or a part does not support the batch size.
        OutputError: as `package_triton`.
    """
    largest, why_not = _batch(ensemble, settings)
    if settings.max_batch_size and not largest:
        raise StageError(f"ensemble {ensemble.name!r}: max_batch_size is set, but {why_not}. Remove it.")
    serving = TritonServing(
        version=settings.version,
        batching=bool(largest),
        max_batch_size=largest or None,
        instances=settings.instances,
        version_policy=VersionPolicy(latest=1),
        warmup=False,
        client=False,  # clients use the ensemble
    )
    contracts = {node.name: _contract(node, serving) for node in ensemble.nodes}
    parts = [_part(ensemble, node, contracts[node.name], serving) for node in ensemble.nodes]
    contract = TritonContract(ensemble.inputs, ensemble.outputs, largest, (), ())
    model = RepositoryModel(
        name=ensemble.name,
        version=settings.version,
        config=_config(ensemble, contract, contracts),
        files={".keep": b""},  # the server needs the folder, and git and archives drop empty folders
        warmup={},
        golden=seen_by_clients(golden, ensemble.inputs, ensemble.outputs, contract),
    )
    with writing(repository):
        if settings.client:
            check_writable(repository, ensemble.name)
        written, notes = write_models(repository, (*parts, model), force=force)[-1]
        client, left = write_client_of(model, repository, contract, ensemble.dims) if settings.client else (None, [])
    return Packaged(
        target="triton",
        name=ensemble.name,
        version=str(settings.version),
        path=(repository / ensemble.name).absolute(),
        files=written,
        notes=(
            f"its parts are {', '.join(part.name for part in parts)}",
            *([] if largest else [f"no batching: {why_not}"]),
            *notes,
            *left,
        ),
        command=serve_command(repository, on_gpu=settings.instances.kind == "gpu"),
        client=client,
    )


def _model_name(ensemble: Ensemble, node: Node) -> str:
    return f"{ensemble.name}_{node.name}"


def _batch(ensemble: Ensemble, settings: EnsembleSettings) -> tuple[int, str]:
    """Return the largest batch size of all parts and "", or 0 and the reason why there is no batching."""
    inside = [spec for node in ensemble.nodes for spec in (*node.inputs, *node.outputs)]
    batch = batch_dim([*ensemble.inputs, *ensemble.outputs, *inside])
    if batch is None:
        return 0, "its tensors have no common first dimension"
    for node in ensemble.nodes:
        found = node.independence
        if node.artifact is not None and (found is None or not found.passed or found.dim != batch):
            reason = (
                found.failure if found and found.failure else f"no passed check for batch independence along {batch!r}"
            )
            return 0, f"{node.name!r} does not support batching: {reason}"
    sizes = ensemble.dims[batch]
    if sizes.min > 1:
        return 0, f"the minimum of dimension {batch!r} is {sizes.min}, not 1"
    return min(settings.max_batch_size or sizes.max, sizes.max), ""


def _contract(node: Node, serving: TritonServing) -> TritonContract:
    if node.artifact is not None:
        return triton_contract(node.artifact, serving, node.independence)
    return TritonContract(node.inputs, node.outputs, serving.max_batch_size or 0, (), ())


def _part(ensemble: Ensemble, node: Node, contract: TritonContract, serving: TritonServing) -> RepositoryModel:
    name = _model_name(ensemble, node)
    if node.artifact is not None:
        return triton_model(node.artifact, serving, name=name, independence=node.independence, sample=None)[0]
    return RepositoryModel(
        name=name,
        version=serving.version,
        config=python_config(name, contract, serving.instances.model_copy(update={"kind": "cpu", "gpus": ()})),
        files=python_files(node.function or "", node.inputs, node.outputs, batched=bool(contract.max_batch_size)),
        warmup={},
        golden=None,
    )


def _config(ensemble: Ensemble, contract: TritonContract, contracts: dict[str, TritonContract]) -> "schema.ModelConfig":
    from tritonclient.grpc import model_config_pb2 as schema

    config = schema.ModelConfig(name=ensemble.name, platform="ensemble", max_batch_size=contract.max_batch_size)
    for spec in contract.inputs:
        describe_tensor(config.input.add(), spec, contract, reshape=False)
    for spec in contract.outputs:
        describe_tensor(config.output.add(), spec, contract, reshape=False)
    for node in ensemble.nodes:
        served = contracts[node.name]
        step = config.ensemble_scheduling.step.add(model_name=_model_name(ensemble, node), model_version=-1)
        for own, shown in zip(node.inputs, served.inputs, strict=True):
            step.input_map[shown.name] = node.takes[own.name]
        for own, shown in zip(node.outputs, served.outputs, strict=True):
            if own.name in node.gives:
                step.output_map[shown.name] = node.gives[own.name]
    return config
