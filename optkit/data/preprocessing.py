"""The preprocessing of images, declared once for calibration data and servers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from optkit.artifact.tensors import TensorSpec
from optkit.deps import require
from optkit.errors import FeedError
from optkit.record import Record

if TYPE_CHECKING:
    import numpy as np

_CHANNELS = {"RGB": 3, "BGR": 3, "L": 1}


def _checked_size(value: object) -> object:
    sides = value if isinstance(value, (list, tuple)) and len(value) == 2 else [value]
    if not all(type(side) is int and side > 0 for side in sides):
        raise ValueError(f"{value!r}: expected a length in pixels, or [height, width]")
    return value


_Size = Annotated[int | tuple[int, int], BeforeValidator(_checked_size)]


class ImagePreprocessing(Record):
    """Decode, resize, crop, normalize ((pixel * scale - mean) / std) and set the layout; see `optkit.data.images.read_image`."""

    mode: Literal["RGB", "BGR", "L"] = "RGB"
    resize: _Size | None = None  # length of the shorter side, or height and width
    crop: _Size | None = None  # center crop: side of a square, or height and width
    scale: float = Field(default=1 / 255, gt=0, allow_inf_nan=False)
    mean: tuple[float, ...] = (0.0,)  # one value per channel, or one value for all
    std: tuple[Annotated[float, Field(gt=0)], ...] = (1.0,)
    layout: Literal["chw", "hwc"] = "chw"

    @model_validator(mode="after")
    def _one_number_for_each_channel(self) -> Self:
        for key in ("mean", "std"):
            if len(getattr(self, key)) not in (1, _CHANNELS[self.mode]):
                raise ValueError(
                    f"{key}: {len(getattr(self, key))} numbers for mode {self.mode}; "
                    f"expected {_CHANNELS[self.mode]}, one per channel, or one for all"
                )
        return self

    @property
    def keeps_pixels(self) -> bool:
        """Whether the values stay pixel values from 0 to 255."""
        return self.scale == 1 and set(self.mean) == {0.0} and set(self.std) == {1.0}

    @property
    def sample_shape(self) -> tuple[int | None, int | None, int | None]:
        """The shape of a preprocessed image; None for a dimension that depends on the image."""
        size = self.crop if self.crop is not None else self.resize
        if size is None or (self.crop is None and isinstance(size, int)):
            height = width = None  # only the shorter side of a resized image is known
        else:
            height, width = (size, size) if isinstance(size, int) else size
        channels = _CHANNELS[self.mode]
        return (channels, height, width) if self.layout == "chw" else (height, width, channels)

    def read(self, path: Path, spec: TensorSpec) -> "np.ndarray":
        """Read an image file as one sample of the input, without a batch dimension.

        Raises:
            FeedError: the file cannot be read, or its shape or dtype does not match the input.
            MissingDependency: Pillow is not installed.
        """
        from optkit.data.images import read_image

        require("PIL", extra="images")
        try:
            sample = read_image(path.read_bytes(), **self.model_dump())
        except (OSError, ValueError) as e:
            raise FeedError(f"{path}: {e}") from e
        expected = spec.shape[1:]
        fixed = zip(sample.shape, expected, strict=False)
        if len(sample.shape) != len(expected) or any(isinstance(dim, int) and dim != size for size, dim in fixed):
            shape = ",".join(map(str, sample.shape))
            raise FeedError(
                f"{path}: the preprocessed image is float32[{shape}]; a sample of {spec.name!r} is {list(expected)}. "
                f"Set resize, crop, mode and layout so that the shapes match."
            )
        if not spec.dtype.is_float and not self.keeps_pixels:
            raise FeedError(
                f"{path}: the preprocessed image is float32; {spec.name!r} takes {spec.dtype}. "
                f"Set scale: 1 and omit mean and std to keep pixel values from 0 to 255."
            )
        return sample.astype(spec.dtype.numpy)
