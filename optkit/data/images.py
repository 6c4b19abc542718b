"""Conversion of the bytes of an image to an input array.

This file needs only numpy and Pillow and does not import optkit. Packages for servers contain it, so that calibration, evaluation and
serving read images in the same way.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

MAX_PIXELS = 64 * 2**20  # limit for one image; a small file can expand to far more pixels


def read_image(
    content: bytes,
    *,
    mode: str,
    resize: int | Sequence[int] | None,
    crop: int | Sequence[int] | None,
    scale: float,
    mean: Sequence[float],
    std: Sequence[float],
    layout: str,
) -> np.ndarray:
    """Decode, resize, crop and normalise one image: (pixel * scale - mean) / std, channel by channel.

    Args:
        content: content of an image file that Pillow can read, such as JPEG or PNG; only the first frame is used.
        mode: `RGB`, `BGR` or `L`.
        resize: length of the shorter side, or (height, width); bilinear with antialiasing. None keeps the size.
        crop: side of a center square, or (height, width) of a center crop. None does not crop.
        scale: factor for pixel values from 0 to 255.
        mean: one value per channel, or one value for all.
        std: one value per channel, or one value for all.
        layout: `chw` or `hwc`.

    Returns:
        float32 array, (C, H, W) or (H, W, C).

    Raises:
        ValueError: the content is not an image, or the image is too large or smaller than the crop.
    """
    pixels = _pixels(content, "RGB" if mode == "BGR" else mode, resize)  # (H, W, C)
    pixels = _cropped(pixels, crop)
    if mode == "BGR":
        pixels = pixels[:, :, ::-1]
    values = (pixels.astype(np.float32) * np.float32(scale) - np.asarray(mean, np.float32)) / np.asarray(
        std, np.float32
    )
    return np.ascontiguousarray(values.transpose(2, 0, 1) if layout == "chw" else values)


def _pixels(content: bytes, mode: str, resize: int | Sequence[int] | None) -> np.ndarray:
    from PIL import Image

    try:
        image: Any = Image.open(io.BytesIO(content))
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"the image has {image.width} x {image.height} pixels; expected at most {MAX_PIXELS}")
        image = image.convert(mode)
    except (OSError, SyntaxError, Image.DecompressionBombError) as e:  # Pillow raises SyntaxError for a broken PNG
        raise ValueError(f"the content cannot be read as an image ({e})") from e
    if resize is not None:
        height, width = _size(resize, image.height, image.width)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array if array.ndim == 3 else array[:, :, None]


def _size(resize: int | Sequence[int], height: int, width: int) -> tuple[int, int]:
    """Return the height and width after resizing; the longer side is rounded down, as in torchvision."""
    if not isinstance(resize, int):
        return int(resize[0]), int(resize[1])
    if height <= width:
        return resize, max(1, resize * width // height)
    return max(1, resize * height // width), resize


def _cropped(pixels: np.ndarray, crop: int | Sequence[int] | None) -> np.ndarray:
    if crop is None:
        return pixels
    height, width = (crop, crop) if isinstance(crop, int) else (int(crop[0]), int(crop[1]))
    if pixels.shape[0] < height or pixels.shape[1] < width:
        found = f"{pixels.shape[0]} x {pixels.shape[1]}"
        raise ValueError(f"the image is {found} (height x width); expected at least the crop, {height} x {width}")
    top, left = round((pixels.shape[0] - height) / 2), round((pixels.shape[1] - width) / 2)
    return pixels[top : top + height, left : left + width]
