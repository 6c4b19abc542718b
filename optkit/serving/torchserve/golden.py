"""Golden samples of a TorchServe archive. They are stored beside the archive, because the server reads everything in the archive."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from optkit.artifact import Artifact
from optkit.artifact.findings import Tolerance
from optkit.artifact.tensors import Sizes, TensorSpec
from optkit.checks import TOLERANCES
from optkit.data import Samples
from optkit.data.images import read_image
from optkit.data.preprocessing import ImagePreprocessing
from optkit.deps import require
from optkit.errors import ArtifactError
from optkit.record import Document, Record
from optkit.runners import open_runner
from optkit.serving.golden import Golden, make_golden, read_golden, write_golden
from optkit.serving.settings import Name
from optkit.untrusted.paths import is_file

_RECORD, _ARRAYS = ".golden.json", ".golden.npz"


class ClassScores(Record):
    """The output that gives the class probabilities: as probabilities, or as logits, which need softmax."""

    output: str
    scores: str
    names: tuple[str, ...]


class TorchServeGolden(Document):
    """The format of the requests for golden samples, and the tolerance. The .npz file beside it holds the arrays.

    `batched`: a request holds one row. `image`: the array of this input is the bytes of an image file, and there is one request.
    """

    schema_id: ClassVar[str] = "optkit/torchserve-golden/1"

    model: Name
    version: Name
    tolerance: Tolerance
    batched: bool
    image: str | None = None
    classes: ClassScores | None = None


def golden_files(archive: Path) -> tuple[Path, Path]:
    """Return the paths of the record and of the arrays for an archive."""
    return archive.with_suffix(_RECORD), archive.with_suffix(_ARRAYS)


def archive_golden(artifact: Artifact, samples: Samples, image: ImagePreprocessing | None) -> Golden:
    """Make golden samples for a model with a generated handler: rows of its inputs, or the bytes of an image.

    The image is the first image of the samples, or a seeded picture if the samples are not images.

    Raises:
        RunnerError: the artifact cannot run on this machine.
        FeedError: the real data does not fit the inputs.
        MissingDependency: images need Pillow.
        ArtifactError: the image does not fit the model.
    """
    if image is None:
        return make_golden(artifact, samples)
    require("PIL", "images")
    spec = artifact.inputs[0]
    file = samples.real.first_image() if samples.real is not None else None
    content = file.read_bytes() if file else _picture(spec, image, {name: r.opt for name, r in artifact.dims.items()})
    try:
        pixels = read_image(content, **image.model_dump()).astype(spec.dtype.numpy)
    except ValueError as e:
        raise ArtifactError(f"{artifact.path.name}: image: the preprocessing of the golden image failed: {e}") from e
    feed = {spec.name: pixels[None] if len(spec.shape) == pixels.ndim + 1 else pixels}
    with open_runner(artifact) as runner:
        outputs = runner.infer(feed)
    return Golden({spec.name: np.frombuffer(content, np.uint8)}, outputs, TOLERANCES[artifact.precision])


def write_archive_golden(
    archive: Path, golden: Golden, contract: Mapping[str, Any], version: str, names: tuple[str, ...]
) -> None:
    """Write golden samples beside an archive; `contract` is the contract of its handler."""
    record, arrays = golden_files(archive)
    classes = contract["classes"]
    write_golden(golden, arrays)
    TorchServeGolden(
        model=archive.stem,
        version=version,
        tolerance=golden.tolerance,
        batched=contract["batch"] is not None,
        image=contract["inputs"][0]["name"] if contract["image"] else None,
        classes=ClassScores(**classes, names=names) if classes else None,
    ).write(record)


def read_archive_golden(archive: Path) -> tuple[TorchServeGolden, Golden] | None:
    """Read the golden samples of an archive, or return None if there are none.

    Raises:
        ArtifactError: the files are damaged.
    """
    path, arrays = golden_files(archive)
    if not is_file(path):
        return None
    record = TorchServeGolden.read(path)
    golden = read_golden(arrays, record.tolerance)
    needed = {record.classes.output} if record.classes else set()
    if not golden.inputs or not golden.outputs or needed - set(golden.outputs):
        raise ArtifactError(
            f"{arrays}: lacks inputs or outputs; expected the arrays for {path.name}. Package the model again."
        )
    return record, golden


def _picture(spec: TensorSpec, image: ImagePreprocessing, sizes: Sizes) -> bytes:
    """Return a PNG with coarse colours, always the same. It has the model's input size, or twice that size if `image` resizes it."""
    from PIL import Image

    shape = spec.shape_at(sizes)
    height, width = shape[-2:] if image.layout == "chw" else shape[-3:-1]
    times = 2 if image.resize is not None else 1
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    content = io.BytesIO()
    picture: Any = Image.fromarray(colours)
    picture.resize((width * times, height * times), Image.Resampling.BILINEAR).save(content, "PNG")
    return content.getvalue()
