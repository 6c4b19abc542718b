"""The contract as Triton is told it: the names of the tensors, and whether and how far requests are batched."""

import dataclasses

from optkit.artifact import Artifact, Format
from optkit.artifact.findings import BatchIndependence
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.errors import StageError
from optkit.serving.package import Described, shared_batch
from optkit.serving.settings import TritonModelSettings, TritonServing
from optkit.serving.triton.libtorch import libtorch_names


@dataclasses.dataclass(frozen=True)
class TritonContract:
    """Inputs and outputs under their names in Triton, in the order of the artifact's.

    `max_batch_size` is 0 where Triton must not put requests together; the shapes then are the model's own. Otherwise
    the first dimension of every shape is the batch.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int
    preferred_batch_sizes: tuple[int, ...]
    notes: tuple[str, ...]
    warmup_batch_sizes: tuple[int, ...] = (1,)


def triton_contract(
    artifact: Artifact, settings: TritonServing, independence: BatchIndependence | None
) -> TritonContract:
    """Return what Triton is told of the artifact.

    Raises:
        StageError: batching is asked for and not proven, its sizes do not fit, or Triton cannot serve this model.
        ArtifactError: a TorchScript file cannot be loaded.
    """
    _check_backend_options(artifact, settings)
    contract = described_contract(artifact.path.name, artifact, settings, independence)
    if artifact.format is not Format.TORCHSCRIPT:
        return contract
    inputs, outputs = libtorch_names(artifact)
    renamed = [
        f"{new.name} is {old.name}"
        for new, old in zip((*inputs, *outputs), (*artifact.inputs, *artifact.outputs), strict=True)
        if new.name != old.name
    ]
    note = f"names as Triton's PyTorch backend needs them: {', '.join(renamed)}"
    return dataclasses.replace(contract, inputs=inputs, outputs=outputs, notes=(*contract.notes, note))


def described_contract(
    where: str, model: Described, settings: TritonModelSettings, independence: BatchIndependence | None
) -> TritonContract:
    """Return what Triton is told of a model that has its own names there.

    Args:
        where: what messages call it.
        model: its contract.
        settings: the serve entry.
        independence: what was found on putting requests together.

    Raises:
        StageError: batching is asked for and not proven, or its sizes do not fit.
    """
    notes = []
    batch, why_not = shared_batch(model)
    if batch is None and (settings.preferred_batch_sizes or settings.max_batch_size):
        raise StageError(
            f"{where}: batch sizes are asked for, but {why_not}. Leave max_batch_size and preferred_batch_sizes out."
        )
    if batch is None and (settings.queue or settings.priorities):
        key = "queue" if settings.queue else "priorities"
        raise StageError(f"{where}: {key} is given, but {why_not}, so Triton has no queue. Leave it out.")
    if batch is None and settings.batching:
        notes.append(f"no batching (max_batch_size: 0): {why_not}")
    if not (batch and settings.batching):
        return TritonContract(model.inputs, model.outputs, 0, (), tuple(notes))
    largest = _proven_largest(where, batch, model.dims[batch], settings, independence)
    preferred = _preferred(where, batch, settings, largest)
    warmed = {1, *(preferred or (min(model.dims[batch].opt, largest), largest))}
    return TritonContract(model.inputs, model.outputs, largest, preferred, tuple(notes), tuple(sorted(warmed)))


def _check_backend_options(artifact: Artifact, settings: TritonServing) -> None:
    """Refuse what the backend of this format would not read, which Triton lets pass in silence."""
    if settings.optimization.cuda_graphs and artifact.format in (Format.ONNX, Format.TORCHSCRIPT):
        raise StageError(
            f"{artifact.path.name}: optimization.cuda_graphs is read by Triton's TensorRT backend alone, and this is "
            f"{artifact.format}. Package an engine, or leave it out."
        )
    if settings.optimization.accelerators and artifact.format is not Format.ONNX:
        raise StageError(
            f"{artifact.path.name}: optimization.accelerators are read by Triton's ONNX backend alone, and this is "
            f"{artifact.format}. Package an ONNX artifact, or leave them out."
        )


def _proven_largest(
    where: str, batch: str, sizes: DimRange, settings: TritonModelSettings, independence: BatchIndependence | None
) -> int:
    """Return the largest batch, where requests may be put together."""
    if independence is not None and independence.failure:
        raise StageError(
            f"{where}: batching would give wrong answers: {independence.failure}. "
            f"Mend the model, or set batching: false."
        )
    if independence is None or independence.dim != batch:
        raise StageError(
            f"{where}: it is not proven that requests may be put together along {batch!r}. "
            f"Run optkit check first, or set batching: false."
        )
    if sizes.min > 1:
        raise StageError(
            f"{where}: dimension {batch!r} is declared from {sizes.min} on, but a server that batches also runs single "
            f"requests. Declare its min as 1, or set batching: false."
        )
    if settings.max_batch_size and settings.max_batch_size > sizes.max:
        raise StageError(
            f"{where}: max_batch_size {settings.max_batch_size} is above the {sizes.max} that is declared and checked "
            f"for {batch!r}. Lower it, or declare a larger max."
        )
    return settings.max_batch_size or sizes.max


def _preferred(where: str, batch: str, settings: TritonModelSettings, largest: int) -> tuple[int, ...]:
    """Return the preferred batch sizes that are asked for: a queue that holds one of them is never sent as a larger batch."""
    asked = settings.preferred_batch_sizes
    if asked and max(asked) > largest:
        raise StageError(
            f"{where}: preferred_batch_sizes {list(asked)}: {max(asked)} is above max_batch_size {largest}, "
            f"which comes from dimension {batch!r}. Lower it."
        )
    return tuple(sorted(set(asked)))
