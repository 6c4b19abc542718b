"""Images as feeds: a folder of images, and a YAML file with the preprocessing.

    images: photos                 # folder, relative to this file; read with subfolders, in the order of names
    resize: 256
    crop: 224
    mean: [0.485, 0.456, 0.406]
    std: [0.229, 0.224, 0.225]
    input: image                   # optional if the model has one input

The other keys are the fields of `ImagePreprocessing`, which servers also use for requests.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from optkit.artifact.tensors import TensorSpec
from optkit.data.preprocessing import ImagePreprocessing
from optkit.errors import FeedError
from optkit.hashing import hash_of, sha256_of
from optkit.record import faults
from optkit.untrusted.documents import read_yaml
from optkit.untrusted.paths import is_folder, path_fault

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".yaml", ".yml", ".json")  # JSON is YAML too
_IMAGES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


class ImageFolder(ImagePreprocessing):
    """The keys of the YAML file."""

    images: Path
    input: str | None = None

    @classmethod
    def from_file(cls, file: Path) -> "ImageFolder":
        """Read the YAML file.

        Raises:
            FeedError: the file cannot be read, has faults, or names a folder without images.
        """
        try:
            found = cls.model_validate(read_yaml(file, FeedError))
        except ValidationError as e:
            raise FeedError(f"{file}: {'; '.join(faults(e))}") from e
        found = found.model_copy(update={"images": (file.parent / found.images).absolute()})
        if not found.files():
            what = "no image in the folder" if is_folder(found.images) else "no such folder"
            raise FeedError(f"{file}: images: {found.images}: {what}; expected {', '.join(sorted(_IMAGES))}")
        return found

    def files(self) -> list[Path]:
        """Return the image files in the order of their names; links are followed.

        Raises:
            FeedError: a folder, a FIFO or a device has an image suffix.
        """
        if not is_folder(self.images):
            return []
        found = sorted(path for path in self.images.rglob("*") if path.suffix.lower() in _IMAGES)
        for path in found:
            if fault := path_fault(path):
                raise FeedError(f"{path}: {fault}; expected an image. Move it out of the folder.")
        return found

    def sha256(self) -> str:
        """Return the hash of the preprocessing and the images."""
        files = {str(file.relative_to(self.images)): sha256_of(file) for file in self.files()}
        return hash_of({"preprocessing": self.model_dump(mode="json", exclude={"images"}), "files": files})

    def feeds(self, inputs: Sequence[TensorSpec]) -> Iterator["dict[str, np.ndarray]"]:
        """Yield one feed per image.

        Raises:
            FeedError: the model has no such input, or a file cannot be read as an image or does not match the input.
            MissingDependency: Pillow is not installed.
        """
        known = {spec.name: spec for spec in inputs}
        name = self.input or next(iter(known))
        if name not in known:
            raise FeedError(f"input: {name!r}; the model takes {', '.join(known)}")
        preprocessing = ImagePreprocessing(**self.model_dump(exclude={"images", "input"}))
        for file in self.files():
            yield {name: preprocessing.read(file, known[name])[None]}
