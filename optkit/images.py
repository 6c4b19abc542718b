"""Images as feeds: a folder, and a YAML file beside it that says how they are prepared.

images: photos                 # a folder, relative to this file; read in the order of names, folders in it too
resize: 256                    # the shorter side, or [height, width]
crop: 224                      # from the middle; a number or [height, width]
color: rgb                     # rgb, bgr or grey
scale: 0.00392156862745098     # by which a pixel of 0 to 255 is multiplied; 1/255 where it is left out
mean: [0.485, 0.456, 0.406]    # subtracted after that, for each channel or one for all
std: [0.229, 0.224, 0.225]     # divided by after that
layout: nchw                   # or nhwc
dtype: float32
input: image                   # the model's input; may be left out where it has one
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import yaml
from pydantic import BeforeValidator, Field, ValidationError, field_validator

from optkit import deps
from optkit.artifact import hash_of, sha256_of
from optkit.errors import FeedError, first_line
from optkit.record import Record, faults
from optkit.tensors import DType

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".yaml", ".yml", ".json")  # JSON is YAML too
_IMAGES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_MODES = {"rgb": "RGB", "bgr": "RGB", "grey": "L"}


def _pair(value: object) -> object:
    return (value, value) if isinstance(value, int) else value


def _floats(value: object) -> object:
    return (value,) if isinstance(value, int | float) else value


Size = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]  # height, width
Channels = Annotated[tuple[float, ...], BeforeValidator(_floats)]


class ImageFolder(Record):
    """The keys of the YAML file."""

    images: Path
    resize: Annotated[int, Field(ge=1)] | Size | None = None
    crop: Annotated[Size, BeforeValidator(_pair)] | None = None
    color: Literal["rgb", "bgr", "grey"] = "rgb"
    scale: float = 1 / 255
    mean: Channels = (0.0,)
    std: Channels = (1.0,)
    layout: Literal["nchw", "nhwc"] = "nchw"
    dtype: DType = DType.FLOAT32
    input: str | None = None

    @field_validator("std")
    @classmethod
    def _divides(cls, std: tuple[float, ...]) -> tuple[float, ...]:
        if not all(std):
            raise ValueError("holds 0, by which nothing can be divided")
        return std

    @classmethod
    def read(cls, file: Path) -> "ImageFolder":
        """Read the YAML file.

        Raises:
            FeedError: it is no such file, or names a folder without images.
        """
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            found = cls.model_validate(content)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
            raise FeedError(f"{file}: cannot be read as YAML ({first_line(e)})") from e
        except ValidationError as e:
            raise FeedError(f"{file}: {'; '.join(faults(e))}") from e
        found = found.model_copy(update={"images": (file.parent / found.images).absolute()})
        channels = 1 if found.color == "grey" else 3
        for key in ("mean", "std"):
            if len(getattr(found, key)) not in (1, channels):
                raise FeedError(f"{file}: {key}: {len(getattr(found, key))} numbers; expected 1 or {channels}")
        if not found.files():
            what = "no image in it" if found.images.is_dir() else "no such folder"
            raise FeedError(f"{file}: images: {found.images}: {what}; expected {', '.join(sorted(_IMAGES))}")
        return found

    def files(self) -> list[Path]:
        """Return the images, in the order of their names."""
        return sorted(path for path in self.images.rglob("*") if path.suffix.lower() in _IMAGES)

    def sha256(self) -> str:
        """Return the hash of the preparation and of the images."""
        files = {str(file.relative_to(self.images)): sha256_of(file) for file in self.files()}
        return hash_of({"preparation": self.model_dump(mode="json", exclude={"images"}), "files": files})

    def feeds(self, default_input: str) -> Iterator[dict[str, np.ndarray]]:
        """Yield one feed of one image at a time.

        Args:
            default_input: the name of the input where the file does not say one.

        Raises:
            FeedError: a file cannot be read as an image, or is smaller than the crop.
            MissingDependency: Pillow is not installed.
        """
        for file in self.files():
            yield {self.input or default_input: self._prepared(file)[None]}

    def _prepared(self, file: Path) -> np.ndarray:
        """Return one image as the model takes it, (channels, height, width) or (height, width, channels)."""
        pixels = np.asarray(self._opened(file), np.float32)  # (height, width) or (height, width, 3)
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        if self.color == "bgr":
            pixels = pixels[:, :, ::-1]
        values = (pixels * np.float32(self.scale) - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        values = values.transpose(2, 0, 1) if self.layout == "nchw" else values
        return np.ascontiguousarray(values, self.dtype.numpy)

    def _opened(self, file: Path) -> "Image.Image":
        deps.require("PIL", "images")
        from PIL import Image, ImageOps, UnidentifiedImageError

        try:
            with Image.open(file) as opened:
                upright = ImageOps.exif_transpose(opened) or opened
                image = upright.convert(_MODES[self.color])
        except (OSError, UnidentifiedImageError, ValueError) as e:
            raise FeedError(f"{file}: cannot be read as an image ({first_line(e)})") from e
        if self.resize is not None:
            image = image.resize(self._new_size(image.width, image.height), Image.Resampling.BILINEAR)
        return image if self.crop is None else self._cropped(image, file)

    def _new_size(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height), as Pillow has it."""
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        short = self.resize or 0
        if width <= height:
            return short, round(height * short / width)
        return round(width * short / height), short

    def _cropped(self, image: "Image.Image", file: Path) -> "Image.Image":
        height, width = self.crop or (0, 0)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        if left < 0 or top < 0:
            raise FeedError(
                f"{file}: is {image.height}x{image.width} pixels; the crop takes {height}x{width}. Resize to at least that."
            )
        return image.crop((left, top, left + width, top + height))
