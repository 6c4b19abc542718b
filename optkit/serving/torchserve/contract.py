"""The contract of a model for the generated TorchServe handler, which reads it from contract.json in the archive."""

from optkit.artifact import Artifact
from optkit.artifact.findings import BatchIndependence
from optkit.artifact.tensors import TensorSpec
from optkit.data.preprocessing import ImagePreprocessing
from optkit.errors import StageError
from optkit.messages import listed
from optkit.serving.packaged import shared_batch
from optkit.serving.settings import TorchServeServing


def handler_contract(
    artifact: Artifact, settings: TorchServeServing, independence: BatchIndependence | None
) -> dict[str, object]:
    """Return the content of contract.json.

    A request holds one sample, without the dimension `batch`. If `batch` is None, a request holds the complete inputs. The handler
    runs up to `max_batch` requests with equal shapes in one forward call.

    Raises:
        StageError: the model does not support the batch size, no output fits the class names, or the image does not fit the input.
    """
    batch, why_not = shared_batch(artifact)
    smallest = artifact.dims[batch].min if batch else 1
    if smallest > 1:
        batch, why_not = None, f"the minimum of dimension {batch!r} is {smallest}, not 1"
    if settings.batch_size > 1:
        _check_batching(artifact, settings.batch_size, batch, why_not, independence)
    return {
        "inputs": [spec.model_dump(mode="json") for spec in artifact.inputs],
        "outputs": [spec.model_dump(mode="json") for spec in artifact.outputs],
        "dims": {dim: [r.min, r.max] for dim, r in artifact.dims.items()},
        "batch": batch,
        "max_batch": settings.batch_size,
        "classes": _classes(artifact, settings, batch),
        "engine": artifact.torch_engine,
        "image": _image(artifact, settings.image, batch) if settings.image else None,
    }


def _check_batching(
    artifact: Artifact, size: int, batch: str | None, why_not: str | None, independence: BatchIndependence | None
) -> None:
    where = f"{artifact.path.name}: batch_size {size}"
    if batch is None:
        raise StageError(f"{where}: the model does not support batching: {why_not}. Set batch_size: 1.")
    if independence is not None and independence.failure:
        raise StageError(
            f"{where}: batching would give wrong answers: {independence.failure}. Fix the model, or set batch_size: 1."
        )
    if independence is None or independence.dim != batch:
        raise StageError(
            f"{where}: the check for batch independence along {batch!r} is missing; batching needs it. "
            f"Run optkit check first, or set batch_size: 1."
        )
    if size > artifact.dims[batch].max:
        raise StageError(
            f"{where}: expected at most {artifact.dims[batch].max}, the declared maximum of {batch!r}. Lower it."
        )


def _classes(artifact: Artifact, settings: TorchServeServing, batch: str | None) -> dict[str, str] | None:
    """Return the output for the class names: the first output with one number per class in a sample."""
    if settings.class_names is None:
        return None

    def sample_shape(spec: TensorSpec) -> tuple[int | str, ...]:
        return spec.shape[1:] if batch else spec.shape

    for spec in artifact.outputs:
        if sample_shape(spec) == (len(settings.class_names),) and spec.dtype.is_float:
            return {"output": spec.name, "scores": settings.class_scores}
    raise StageError(
        f"class_names: got {len(settings.class_names)} names; expected an output with as many numbers per sample, but the outputs are "
        f"{listed(artifact.outputs)}. Give one name for each class of an output."
    )


def _image(artifact: Artifact, image: ImagePreprocessing, batch: str | None) -> dict[str, object]:
    """Return the preprocessing from an image to the model's only input."""
    where = f"{artifact.path.name}: image"
    if len(artifact.inputs) != 1:
        raise StageError(
            f"{where}: the model has the inputs {listed(artifact.inputs)}; expected one input. Remove image; requests are then JSON."
        )
    spec = artifact.inputs[0]
    shape = spec.shape[1:] if batch else spec.shape
    wanted = image.sample_shape
    if len(shape) != 3 or any(
        isinstance(dim, int) and size not in (None, dim) for dim, size in zip(shape, wanted, strict=True)
    ):
        made = " x ".join("any" if size is None else str(size) for size in wanted)
        raise StageError(
            f"{where}: the preprocessing gives {made} ({image.layout}, {image.mode}); expected {list(shape)}, a sample of "
            f"{spec.type_text}. Change resize, crop, mode and layout."
        )
    if not spec.dtype.is_float and not image.keeps_pixels:
        raise StageError(
            f"{where}: the preprocessing gives scaled pixels; expected pixels of 0 to 255 for {spec.type_text}. "
            f"Set scale: 1 and remove mean and std."
        )
    return image.model_dump(mode="json")
