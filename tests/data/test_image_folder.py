import json
import operator
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from optkit.artifact.tensors import TensorSpec
from optkit.data import Feeds, absolute_data, data_fault
from optkit.data.image_folder import ImageFolder
from optkit.errors import FeedError, MissingDependency
from tests.support.hostile import within

INPUTS = (TensorSpec.parse("image:float32[batch,3,height,width]"),)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with three images of different kinds: left half red, right half blue, 8 high and 16 wide."""
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8, 0] = 255
    pixels[:, 8:, 2] = 255
    (tmp_path / "photos" / "more").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "photos" / "b.png")
    Image.fromarray(pixels).convert("P").save(tmp_path / "photos" / "more" / "c.gif")
    Image.fromarray(np.dstack([pixels, np.full((8, 16), 255, np.uint8)])).save(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path


def declared(folder: Path, **keys: object) -> str:
    file = folder / "images.yaml"
    file.write_text(json.dumps({"images": "photos", **keys}))  # JSON is YAML
    return str(file)


def arrays(target: str, name: str = "image") -> list[np.ndarray]:
    return [feed[name] for feed in Feeds(target, INPUTS)]


def test_one_feed_an_image_in_the_order_of_names(folder: Path) -> None:
    feeds = Feeds(declared(folder), INPUTS)
    found = [feed["image"] for feed in feeds]
    assert operator.length_hint(feeds) == len(found) == 3
    assert {array.shape for array in found} == {(1, 3, 8, 16)}
    assert {array.dtype for array in found} == {np.dtype(np.float32)}
    assert found[0][0, :, 0, 0].tolist() == [1, 0, 0]
    assert found[0][0, :, 0, 15].tolist() == [0, 0, 1]
    assert np.array_equal(found[0], found[1])  # with alpha and without
    assert np.array_equal(found[0], found[2])  # a palette


def test_images_are_read_one_at_a_time(folder: Path) -> None:
    feeds = iter(Feeds(declared(folder), INPUTS))
    next(feeds)
    (folder / "photos" / "b.png").unlink()
    with pytest.raises(FeedError, match=r"b\.png: "):
        next(feeds)


def test_they_are_prepared_as_declared(folder: Path) -> None:
    mean, std = [0.5, 0.25, 0], [0.5, 1, 2]
    red = arrays(declared(folder, mean=mean, std=std))[0][0, :, 0, 0]
    assert red == pytest.approx([1, -0.25, 0])
    assert arrays(declared(folder, mode="BGR"))[0][0, :, 0, 0].tolist() == [0, 0, 1]
    assert arrays(declared(folder, scale=1.0))[0].max() == 255
    assert arrays(declared(folder, resize=4))[0].shape == (1, 3, 4, 8)
    assert arrays(declared(folder, resize=[32, 24]))[0].shape == (1, 3, 32, 24)
    cropped = arrays(declared(folder, crop=[4, 6]))[0]
    assert cropped.shape == (1, 3, 4, 6)
    assert cropped[0, :, 0].T.tolist() == [[1, 0, 0]] * 3 + [[0, 0, 1]] * 3  # from the middle
    assert arrays(declared(folder, resize=4, crop=4))[0].shape == (1, 3, 4, 4)


def test_other_layouts_and_types(folder: Path) -> None:
    hwc = (TensorSpec.parse("pixels:uint8[batch,8,16,3]"),)
    target = declared(folder, layout="hwc", scale=1, input="pixels")
    (first, *_) = Feeds(target, hwc)
    assert first["pixels"][0, 0, 0].tolist() == [255, 0, 0]
    grey = (TensorSpec.parse("image:float16[1,1,8,16]"),)
    (first, *_) = Feeds(declared(folder, mode="L"), grey)
    assert first["image"][0, 0, 0, 0] == pytest.approx(76 / 255, abs=1e-3)


def test_the_hash_is_that_of_images_and_preparation(folder: Path) -> None:
    def sha256(**keys: object) -> str:
        return Feeds(declared(folder, **keys), INPUTS).sha256()

    before = sha256()
    assert sha256() == before
    assert sha256(resize=4) != before
    Image.new("RGB", (16, 8)).save(folder / "photos" / "b.png")
    assert sha256() != before


def test_a_relative_file_is_found_from_the_recipe(folder: Path) -> None:
    declared(folder)
    target = absolute_data("images.yaml", folder)
    assert target == str(folder / "images.yaml")
    assert data_fault(target) is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"images": "none"}, r"images: .*none: no such folder; expected \.bmp"),
        ({"images": "."}, None),
        ({"images": "empty"}, r"images: .*empty: no image in the folder"),
        ({"size": 3}, r"size: Extra inputs are not permitted"),
        ({"resize": 0}, r"resize: 0: expected a length in pixels"),
        ({"layout": "nchw"}, r"layout: Input should be 'chw' or 'hwc'"),
        ({"mean": [1, 2]}, r"mean: 2 numbers for mode RGB; expected 3"),
        ({"std": [1, 0, 1]}, r"std\.1: Input should be greater than 0"),
    ],
)
def test_a_wrong_declaration_is_refused(folder: Path, keys: dict[str, object], message: str | None) -> None:
    (folder / "empty").mkdir()
    target = declared(folder, **keys)
    fault = data_fault(target)
    if message is None:
        assert fault is None
        return
    with pytest.raises(FeedError, match=message) as caught:
        list(Feeds(target, INPUTS))
    assert str(caught.value) == fault
    assert fault.startswith(target)


def test_what_is_no_yaml_is_refused(folder: Path) -> None:
    file = folder / "images.yaml"
    for content, message in (("images: [", "cannot be read as YAML"), ("3", "document: Input should be a valid")):
        file.write_text(content)
        with pytest.raises(FeedError, match=message):
            ImageFolder.from_file(file)


def test_a_crop_larger_than_an_image_is_refused(folder: Path) -> None:
    with pytest.raises(
        FeedError, match=r"a\.png: the image is 8 x 16 \(height x width\); expected at least the crop, 9 x 9"
    ):
        arrays(declared(folder, crop=9))


def test_images_that_do_not_fit_the_model_are_refused(folder: Path) -> None:
    fixed = (TensorSpec.parse("image:float32[batch,3,224,224]"),)
    with pytest.raises(
        FeedError, match=r"a\.png: the preprocessed image is float32\[3,8,16\]; a sample of 'image' is \[3, 224, 224\]"
    ):
        list(Feeds(declared(folder), fixed))
    with pytest.raises(FeedError, match=r"input: 'pixels'; the model takes image"):
        list(Feeds(declared(folder, input="pixels"), INPUTS))


def test_without_pillow_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name == "PIL" or name.startswith("PIL.")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency, match=r"PIL is not installed\. Run: pip install 'optkit\[images\]'"):
        arrays(declared(folder))


def test_what_only_bears_the_name_of_an_image_is_refused_and_a_link_is_followed(folder: Path) -> None:
    (folder / "elsewhere.png").write_bytes((folder / "photos" / "a.png").read_bytes())
    (folder / "photos" / "link.png").symlink_to("../elsewhere.png")
    assert len(arrays(declared(folder))) == 4
    (folder / "photos" / "folder.png").mkdir()
    assert data_fault(declared(folder)) == (
        f"{folder}/photos/folder.png: is a directory; expected an image. Move it out of the folder."
    )
    (folder / "photos" / "folder.png").rmdir()
    os.mkfifo(folder / "photos" / "fifo.png")
    for read in (arrays, lambda target: Feeds(target, INPUTS).sha256()):
        with within(), pytest.raises(FeedError, match=r"fifo\.png: is a FIFO, a socket or a device; expected an image"):
            read(declared(folder))
