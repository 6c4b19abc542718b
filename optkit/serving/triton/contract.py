"""The contract of a model in Triton: the names of its tensors, and its batch sizes."""

import dataclasses

from optkit.artifact import Artifact, Format
from optkit.artifact.findings import BatchIndependence
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.errors import StageError
from optkit.serving.packaged import ModelContract, shared_batch
from optkit.serving.settings import TritonModelSettings, TritonServing
from optkit.serving.triton.libtorch import libtorch_names


@dataclasses.dataclass(frozen=True)
class TritonContract:
    """Inputs and outputs with their names in Triton, in the order of the artifact.

    If `max_batch_size` is 0, Triton does not batch, and the shapes are the model's shapes. Otherwise the first dimension of every shape
    is the batch dimension.
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
    """Return the contract of an artifact in Triton.

    Raises:
        StageError: the settings need batching without a passed check, batch sizes do not fit, or Triton cannot serve this model.
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
    note = f"names for Triton's PyTorch backend: {', '.join(renamed)}"
    return dataclasses.replace(contract, inputs=inputs, outputs=outputs, notes=(*contract.notes, note))


def described_contract(
    where: str, model: ModelContract, settings: TritonModelSettings, independence: BatchIndependence | None
) -> TritonContract:
    """Return the contract in Triton of a model that keeps its tensor names.

    Args:
        where: the name of the model in messages.
        model: its inputs, outputs and dimensions.
        settings: the serve entry.
        independence: the result of the check for batch independence.

    Raises:
        StageError: the settings need batching without a passed check, or batch sizes do not fit.
    """
    notes = []
    batch, why_not = shared_batch(model)
    if batch is None and (settings.preferred_batch_sizes or settings.max_batch_size):
        raise StageError(
            f"{where}: batch sizes are set, but {why_not}. Remove max_batch_size and preferred_batch_sizes."
        )
    if batch is None and (settings.queue or settings.priorities):
        key = "queue" if settings.queue else "priorities"
        raise StageError(f"{where}: {key} is set, but {why_not}, so Triton has no queue. Remove it.")
    if batch is None and settings.batching:
        notes.append(f"no batching (max_batch_size: 0): {why_not}")
    if not (batch and settings.batching):
        return TritonContract(model.inputs, model.outputs, 0, (), tuple(notes))
    largest = _proven_largest(where, batch, model.dims[batch], settings, independence)
    preferred = _preferred(where, batch, settings, largest)
    warmed = {1, *(preferred or (min(model.dims[batch].opt, largest), largest))}
    return TritonContract(model.inputs, model.outputs, largest, preferred, tuple(notes), tuple(sorted(warmed)))


def _check_backend_options(artifact: Artifact, settings: TritonServing) -> None:
    """Refuse options that the backend of this format ignores. Triton itself reports nothing."""
    if settings.optimization.cuda_graphs and artifact.format in (Format.ONNX, Format.TORCHSCRIPT):
        raise StageError(
            f"{artifact.path.name}: optimization.cuda_graphs works only with Triton's TensorRT backend; the artifact is "
            f"{artifact.format}. Package an engine, or remove it."
        )
    if settings.optimization.accelerators and artifact.format is not Format.ONNX:
        raise StageError(
            f"{artifact.path.name}: optimization.accelerators works only with Triton's ONNX backend; the artifact is "
            f"{artifact.format}. Package an ONNX artifact, or remove it."
        )


def _proven_largest(
    where: str, batch: str, sizes: DimRange, settings: TritonModelSettings, independence: BatchIndependence | None
) -> int:
    """Return the largest batch size, if the check for batch independence passed."""
    if independence is not None and independence.failure:
        raise StageError(
            f"{where}: batching would give wrong answers: {independence.failure}. "
            f"Fix the model, or set batching: false."
        )
    if independence is None or independence.dim != batch:
        raise StageError(
            f"{where}: the check for batch independence along {batch!r} is missing; batching needs it. "
            f"Run optkit check first, or set batching: false."
        )
    if sizes.min > 1:
        raise StageError(
            f"{where}: the minimum of dimension {batch!r} is {sizes.min}; expected 1, because a server also runs single requests. "
            f"Declare its min as 1, or set batching: false."
        )
    if settings.max_batch_size and settings.max_batch_size > sizes.max:
        raise StageError(
            f"{where}: max_batch_size is {settings.max_batch_size}; expected at most {sizes.max}, the declared maximum of {batch!r}. "
            f"Lower it, or declare a larger max."
        )
    return settings.max_batch_size or sizes.max


def _preferred(where: str, batch: str, settings: TritonModelSettings, largest: int) -> tuple[int, ...]:
    """Return the preferred batch sizes, sorted. If the queue holds a preferred size, Triton never sends a larger batch."""
    preferred = settings.preferred_batch_sizes
    if preferred and max(preferred) > largest:
        raise StageError(
            f"{where}: preferred_batch_sizes {list(preferred)}: {max(preferred)} is above max_batch_size {largest}, "
            f"which comes from dimension {batch!r}. Lower it."
        )
    return tuple(sorted(set(preferred)))
