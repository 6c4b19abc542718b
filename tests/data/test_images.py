import io

import numpy as np
import pytest

from optkit.artifact.tensors import TensorSpec
from optkit.data.images import read_image
from optkit.data.preprocessing import ImagePreprocessing
from optkit.errors import FeedError

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

PLAIN = {"mode": "RGB", "resize": None, "crop": None, "scale": 1.0, "mean": (0.0,), "std": (1.0,), "layout": "hwc"}


def png(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(array).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def test_pixels_come_back_as_they_were_stored(pixels):
    found = read_image(png(pixels), **PLAIN)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, pixels)


def test_layout_mode_scale_mean_and_std(pixels):
    options = {"mode": "BGR", "scale": 1 / 255, "mean": (0.1, 0.2, 0.3), "std": (2.0,), "layout": "chw"}
    found = read_image(png(pixels), **PLAIN | options)
    expected = (
        pixels[:, :, ::-1] / 255 - np.array([0.1, 0.2, 0.3])
    ) / 2  # mean and std in the order of the model's channels
    np.testing.assert_allclose(found, expected.transpose(2, 0, 1), atol=1e-6)


def test_grey_has_one_channel(pixels):
    found = read_image(png(pixels), **PLAIN | {"mode": "L", "layout": "chw"})
    assert found.shape == (1, 6, 8)
    np.testing.assert_allclose(found[0], pixels @ [0.299, 0.587, 0.114], atol=1)  # ITU-R BT.601


@pytest.mark.parametrize(
    ("resize", "crop", "shape"),
    [(3, None, (3, 4)), ((5, 7), None, (5, 7)), (None, 4, (4, 4)), (12, (12, 10), (12, 10)), ((1, 1), None, (1, 1))],
)
def test_resize_and_crop(pixels, resize, crop, shape):
    assert read_image(png(pixels), **PLAIN | {"resize": resize, "crop": crop}).shape == (*shape, 3)


def test_the_shorter_side_is_resized_of_a_tall_image_too(pixels):
    assert read_image(png(pixels.transpose(1, 0, 2)), **PLAIN | {"resize": 3}).shape == (4, 3, 3)


def test_the_crop_is_from_the_middle():
    array = np.zeros((5, 7, 3), np.uint8)
    array[1:4, 2:5] = 9
    assert (read_image(png(array), **PLAIN | {"crop": 3}) == 9).all()


def test_downsampling_averages():
    """Antialiased: every pixel of a fine chequered pattern becomes grey, none stays black or white."""
    fine = (np.indices((32, 32)).sum(0) % 2 * 255).astype(np.uint8)
    found = read_image(png(fine), **PLAIN | {"mode": "L", "resize": 8})
    assert found.min() > 120
    assert found.max() < 136


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\nbroken"])
def test_what_is_no_image_is_refused(content):
    with pytest.raises(ValueError, match="cannot be read as an image"):
        read_image(content, **PLAIN)


def test_a_truncated_image_is_refused(pixels):
    with pytest.raises(ValueError, match="cannot be read as an image"):
        read_image(png(np.tile(pixels, (20, 20, 1)))[:-3000], **PLAIN)


def test_a_bomb_is_refused_before_it_is_decoded(pixels, monkeypatch):
    monkeypatch.setattr("optkit.data.images.MAX_PIXELS", 47)
    with pytest.raises(ValueError, match="8 x 6 pixels; expected at most 47"):
        read_image(png(pixels), **PLAIN)


def test_an_image_below_the_crop_is_refused(pixels):
    with pytest.raises(ValueError, match=r"6 x 8 \(height x width\); expected at least the crop, 7 x 7"):
        read_image(png(pixels), **PLAIN | {"crop": 7})


def test_a_file_becomes_a_sample_of_the_input(pixels, tmp_path):
    (tmp_path / "a.png").write_bytes(png(pixels))
    sample = ImagePreprocessing(resize=(4, 4)).read(
        tmp_path / "a.png", TensorSpec.parse("image:float32[batch,3,height,4]")
    )
    assert sample.shape == (3, 4, 4)
    assert 0 <= sample.min() <= sample.max() <= 1


@pytest.mark.parametrize(
    "spec", ["image:float32[batch,1,4,4]", "image:float32[batch,4,4]", "image:float32[batch,3,4,5]"]
)
def test_an_image_of_another_shape_than_the_input_is_refused(pixels, tmp_path, spec):
    (tmp_path / "a.png").write_bytes(png(pixels))
    with pytest.raises(
        FeedError, match=r"a.png: the preprocessed image is float32\[3,4,4\]; a sample of 'image' is .*Set resize"
    ):
        ImagePreprocessing(resize=(4, 4)).read(tmp_path / "a.png", TensorSpec.parse(spec))


def test_raw_pixels_for_a_model_that_takes_them(pixels, tmp_path):
    (tmp_path / "a.png").write_bytes(png(pixels))
    spec = TensorSpec.parse("image:uint8[batch,6,8,3]")
    sample = ImagePreprocessing(scale=1, layout="hwc").read(tmp_path / "a.png", spec)
    assert sample.dtype == np.uint8
    np.testing.assert_array_equal(sample, pixels)
    with pytest.raises(FeedError, match=r"the preprocessed image is float32; 'image' takes uint8\. Set scale: 1"):
        ImagePreprocessing(layout="hwc").read(tmp_path / "a.png", spec)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FeedError, match=r"a\.png"):
        ImagePreprocessing().read(tmp_path / "a.png", TensorSpec.parse("image:float32[batch,3,4,4]"))


def test_mean_and_std_are_one_or_one_a_channel():
    with pytest.raises(ValueError, match="mean: 2 numbers for mode RGB; expected 3"):
        ImagePreprocessing(mean=(0.1, 0.2))
    with pytest.raises(ValueError, match="std: 3 numbers for mode L; expected 1"):
        ImagePreprocessing(mode="L", std=(1, 1, 1))
