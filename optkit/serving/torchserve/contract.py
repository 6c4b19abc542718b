"""The contract of a model as the generated TorchServe handler reads it, from contract.json in the archive."""

from optkit.artifact import Artifact
from optkit.artifact.findings import BatchIndependence
from optkit.artifact.tensors import TensorSpec
from optkit.data.preprocessing import ImagePreprocessing
from optkit.errors import StageError
from optkit.messages import listed
from optkit.serving.package import shared_batch
from optkit.serving.settings import TorchServeServing


def handler_contract(
    artifact: Artifact, settings: TorchServeServing, independence: BatchIndependence | None
) -> dict[str, object]:
    """Return what the handler must know of the model.

    `batch` is the dimension that a request leaves out, because a request is one sample; None where a request gives the
    whole of every input. Up to `max_batch` requests of the same shapes go into one forward.

    Raises:
        StageError: requests may not be put together as asked, the class names fit no output, or the image fits no input.
    """
    batch, why_not = shared_batch(artifact)
    smallest = artifact.dims[batch].min if batch else 1
    if smallest > 1:
        batch, why_not = None, f"dimension {batch!r} is declared from {smallest} on"
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
        raise StageError(f"{where}: requests cannot be put together: {why_not}. Set batch_size: 1.")
    if independence is not None and independence.failure:
        raise StageError(
            f"{where} would give wrong answers: {independence.failure}. Mend the model, or set batch_size: 1."
        )
    if independence is None or independence.dim != batch:
        raise StageError(
            f"{where}: it is not proven that requests may be put together along {batch!r}. "
            f"Run optkit check first, or set batch_size: 1."
        )
    if size > artifact.dims[batch].max:
        raise StageError(f"{where} is above the {artifact.dims[batch].max} that is declared for {batch!r}. Lower it.")


def _classes(artifact: Artifact, settings: TorchServeServing, batch: str | None) -> dict[str, str] | None:
    """Return which output the class names are for: the first with one number for each name in a sample."""
    if settings.class_names is None:
        return None

    def sample_shape(spec: TensorSpec) -> tuple[int | str, ...]:
        return spec.shape[1:] if batch else spec.shape

    for spec in artifact.outputs:
        if sample_shape(spec) == (len(settings.class_names),) and spec.dtype.is_float:
            return {"output": spec.name, "scores": settings.class_scores}
    raise StageError(
        f"class_names: {len(settings.class_names)} are given, but no output has as many numbers a sample: "
        f"{listed(artifact.outputs)}. Give one name for each class of an output."
    )


def _image(artifact: Artifact, image: ImagePreprocessing, batch: str | None) -> dict[str, object]:
    """Return how the handler makes the one input of an image."""
    where = f"{artifact.path.name}: image"
    if len(artifact.inputs) != 1:
        raise StageError(
            f"{where}: the model takes {listed(artifact.inputs)}; expected one input. Leave image out: requests are JSON then."
        )
    spec = artifact.inputs[0]
    shape = spec.shape[1:] if batch else spec.shape
    wanted = image.sample_shape
    if len(shape) != 3 or any(
        isinstance(dim, int) and size not in (None, dim) for dim, size in zip(shape, wanted, strict=True)
    ):
        made = " x ".join("any" if size is None else str(size) for size in wanted)
        raise StageError(
            f"{where}: makes {made} ({image.layout}, {image.mode}); a sample of {spec.type_text} is {list(shape)}. "
            f"Set resize, crop, mode and layout so that they agree."
        )
    if not spec.dtype.is_float and not image.keeps_pixels:
        raise StageError(
            f"{where}: {spec.type_text} takes pixels of 0 to 255. Set scale: 1 and leave mean and std out."
        )
    return image.model_dump(mode="json")
