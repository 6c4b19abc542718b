"""Sources of feeds: .npz files, images, a user function, or seeded random values (never for calibration)."""

import functools
import hashlib
import operator
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from optkit import user_code
from optkit.artifact.passport import RandomValues
from optkit.artifact.tensors import DimRange, Feed, Sizes, TensorSpec, batch_dim, check_feed
from optkit.data.image_folder import SUFFIXES, ImageFolder
from optkit.data.random_values import is_lengths, longest, random_feed
from optkit.errors import FeedError, OptkitError
from optkit.hashing import hash_of, sha256_of
from optkit.untrusted.paths import path_fault

if TYPE_CHECKING:
    import numpy as np


class Feeds:
    """A data source that can be read more than once; every feed is checked against the declared inputs when it is read.

    Iterating raises FeedError at the first feed that does not match the inputs, and if there is no feed.
    """

    def __init__(self, target: str, inputs: Sequence[TensorSpec]) -> None:
        self.target = target
        self.inputs = tuple(inputs)
        self._count: int | None = None  # the number of feeds; known after a complete reading

    def sha256(self) -> str:
        """Return the hash of the source: of the files or the code, or of the feeds if they are in memory."""
        if user_code.is_in_memory(self.target) and not callable(self._code):
            return self._content_sha256
        if _is_code(self.target):
            return user_code.code_sha256(self.target)
        if _is_images(self.target):
            return ImageFolder.from_file(Path(self.target)).sha256()
        return hash_of({file.name: sha256_of(file) for file in _npz_files(Path(self.target))})

    def first_image(self) -> Path | None:
        """Return the first image file; None if the source is not an image folder."""
        return ImageFolder.from_file(Path(self.target)).files()[0] if _is_images(self.target) else None

    def __iter__(self) -> Iterator[Feed]:
        number = -1
        for number, given in enumerate(self._guarded()):
            try:
                feed = as_feed(given, self.inputs)
                check_feed(feed, self.inputs)
                _check_finite(feed)
            except FeedError as e:
                raise FeedError(f"{self.target}: feed {number}: {str(e).removeprefix('feed: ')}") from e
            yield feed
        expected = self._expected()
        if expected and number + 1 != expected:
            raise FeedError(
                f"{self.target}: yielded {number + 1} feeds; expected {expected}, its length or the number at the previous reading. "
                f"Give a list of feeds, or a function that yields the same feeds at each call."
            )
        if number < 0:
            raise FeedError(f"{self.target}: yielded no feeds; expected at least one mapping of input name to array")
        self._count = number + 1

    def _expected(self) -> int | None:
        """Return the expected number of feeds: the number at the previous reading, or the length of the user's object; None if unknown."""
        if self._count is None and _is_code(self.target) and isinstance(self._called, Sized):
            return len(self._called)
        return self._count

    def __length_hint__(self) -> int:
        """Return the number of feeds if it is known without reading, else 0; not `__len__`, which would define the truth value."""
        if _is_images(self.target):
            return len(ImageFolder.from_file(Path(self.target)).files())
        if not _is_code(self.target):
            return len(_npz_files(Path(self.target)))
        return operator.length_hint(self._called, 0)

    def _guarded(self) -> Iterator[object]:
        """Read the feeds; convert an error in the user's iterable to a FeedError with the user's line."""
        feeds, number = iter(self._read()), 0
        while True:
            try:
                with user_code.running(self._code):
                    feed = next(feeds)
            except StopIteration:
                return
            except OptkitError:
                raise
            except (Exception, SystemExit) as e:
                raise FeedError(f"{self.target}: feed {number}: raised {user_code.describe(e)}") from e
            yield feed
            number += 1

    def _read(self) -> Iterable[object]:
        if _is_code(self.target):
            return self._called
        if _is_images(self.target):
            return ImageFolder.from_file(Path(self.target)).feeds(self.inputs)
        return (_read_npz(file) for file in _npz_files(Path(self.target)))

    @functools.cached_property
    def _content_sha256(self) -> str:
        """The hash of the feeds of the first reading; cached, because a later reading may shuffle them."""
        digest = hashlib.sha256()
        for feed in self:
            for name, array in sorted(feed.items()):
                digest.update(f"\0{name}\0{array.dtype}\0{array.shape}\0".encode())
                digest.update(array.tobytes())
        return digest.hexdigest()

    @functools.cached_property
    def _code(self) -> Any:
        """The object that the target names; None if the target is not code."""
        return user_code.load(self.target) if _is_code(self.target) else None

    @functools.cached_property
    def _called(self) -> Iterable[object]:
        """The result of the user's function, which is called once, or at each reading if it returns an iterator."""
        source = self._code
        try:
            with user_code.running(source):
                found = source() if callable(source) else source
        except (Exception, SystemExit) as e:
            raise FeedError(f"{self.target}: raised {user_code.describe(e)}") from e
        if not isinstance(found, Iterable):
            raise FeedError(
                f"{self.target}: the data is a {type(found).__name__}; expected an iterable of feeds, such as a list"
            )
        if iter(found) is not found:
            return found
        if callable(source):
            return _Rereadable(source)
        raise FeedError(
            f"{self.target}: the data is a {type(found).__name__}, which can be read only once; calibration reads its data "
            f"more than once. Give a list of feeds, or a function that yields them."
        )


class _Rereadable:
    """Calls a generator function at each reading, so that feeds are made while they are read."""

    def __init__(self, function: Callable[[], Iterable[object]]) -> None:
        self._function = function

    def __iter__(self) -> Iterator[object]:
        yield from self._function()


def as_feed(given: object, inputs: Sequence[TensorSpec]) -> Feed:
    """Convert an item of a data source to input name -> array: a mapping, or arrays in the order of the inputs.

    PyTorch tensors become arrays; a single array is a feed for a model with one input.

    Raises:
        FeedError: the item has another type, or the number of arrays differs from the number of inputs.
    """
    if isinstance(given, Mapping):
        named: dict[str, np.ndarray] = {str(name): _as_array(value) for name, value in given.items()}
        return named
    arrays: list[np.ndarray] = [_as_array(one) for one in (given if isinstance(given, (list, tuple)) else [given])]
    if not all(hasattr(array, "dtype") for array in arrays):
        raise FeedError(f"is a {type(given).__name__}; expected a mapping of input name to array, or a tuple of arrays")
    if len(arrays) != len(inputs):
        names = ", ".join(spec.name for spec in inputs)
        raise FeedError(
            f"has {len(arrays)} arrays; expected {len(inputs)}: {names}. Leave out arrays that are not inputs, such as labels"
        )
    return {spec.name: array for spec, array in zip(inputs, arrays, strict=True)}


def _as_array(value: Any) -> Any:
    """Return a PyTorch tensor as an array, and anything else unchanged; torch is not imported for it."""
    return value.detach().cpu().numpy() if type(value).__module__.partition(".")[0] == "torch" else value


def _is_code(target: str) -> bool:
    return user_code.is_in_memory(target) or (":" in target and not Path(target).exists())


def _is_images(target: str) -> bool:
    return Path(target).suffix in SUFFIXES and Path(target).is_file()


def data_fault(target: str) -> str | None:
    """Return the fault of a data source that can be found without running code, or None."""
    if _is_code(target):
        return user_code.target_fault(target)
    try:
        if _is_images(target):
            ImageFolder.from_file(Path(target))
        else:
            _npz_files(Path(target))
    except FeedError as e:
        return str(e)
    return None


def absolute_data(target: str, base: Path) -> str:
    """Return a data source with its path made absolute; a relative one starts at `base`."""
    if user_code.is_in_memory(target):
        return target
    path = base / os.path.expanduser(target)  # noqa: PTH111 - Path.expanduser() raises if there is no such user
    if path.exists() or ":" not in target:
        return str(path.absolute())
    return user_code.absolute_target(target, base)


def _npz_files(path: Path) -> list[Path]:
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not path.exists():
        raise FeedError(f"{path}: no such file or folder; expected .npz files, images.yaml or file.py:function")
    if not files or not (files[0].suffix == ".npz" or _is_npy(files[0])):
        raise FeedError(f"{path}: no .npz file found; expected a folder of .npz files, one feed per file")
    for file in files:
        if fault := path_fault(file):
            raise FeedError(f"{file}: {fault}; expected a .npz file. Move it out of the folder.")
    return files


def _is_npy(path: Path) -> bool:
    """Return whether a file has one array, by its suffix and its first bytes."""
    if path.suffix != ".npy" or not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(6) == b"\x93NUMPY"


def _read_npz(file: Path) -> "dict[str, np.ndarray] | np.ndarray":
    """Read the arrays of a .npz file by name, or the one array of a .npy file, which is the feed of a model with one input."""
    import numpy as np

    try:
        if file.suffix == ".npy":
            with file.open("rb") as stream:
                array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
            return array
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError) as e:
        raise FeedError(f"{file}: cannot be read as {file.suffix} ({e})") from e
    except Exception as e:  # zipfile.BadZipFile and zlib.error have no common base class with the above
        raise FeedError(f"{file}: damaged {file.suffix} ({e})") from e


def write_npz(stream: BinaryIO, arrays: Feed) -> None:
    """Write named arrays as one .npz file. `numpy.savez` cannot write arrays named `file` or `allow_pickle`."""
    import numpy as np

    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def _check_finite(feed: Feed) -> None:
    import numpy as np

    for name, array in feed.items():
        # The extremes are NaN if any element is NaN; unlike a mask they need no memory.
        if array.dtype.kind == "f" and not (np.isfinite(array.min()) and np.isfinite(array.max())):
            raise FeedError(f"input {name!r}: contains NaN or infinity; expected finite numbers")


class Samples:
    """Feeds of any size: real data, cut or repeated to the size, or seeded random values without real data.

    Every named dimension is cut or repeated from its start, so a text with padding on the right keeps its first tokens, and a mask
    still fits its ids. Real data is read on first use, and only up to the size of the largest batch.
    """

    def __init__(
        self,
        inputs: Sequence[TensorSpec],
        dims: Mapping[str, DimRange],
        real: Feeds | None = None,
        random: RandomValues | None = None,
    ) -> None:
        self.inputs = tuple(inputs)
        self.real = real
        self.random = random
        self._batch = batch_dim(self.inputs)
        self._largest = dims[self._batch].max if self._batch and self._batch in dims else 1

    @classmethod
    def of(
        cls,
        target: str | None,
        inputs: Sequence[TensorSpec],
        dims: Mapping[str, DimRange],
        random: RandomValues | None = None,
    ) -> "Samples":
        """Return samples from a data source, or seeded random samples if `target` is None."""
        return cls(inputs, dims, Feeds(target, inputs) if target else None, random)

    @property
    def origin(self) -> str:
        """The source of the values, for the record."""
        return "real samples" if self.real is not None else "seeded random"

    def at(self, sizes: Sizes, seed: int = 0) -> "dict[str, np.ndarray]":
        """Return a feed of these sizes; another seed returns other values (for real data, another first sample).

        Raises:
            FeedError: the real data does not match the inputs.
        """
        import numpy as np

        if not self._pool:
            return random_feed(self.inputs, sizes, seed, values=self.random)
        feed: dict[str, np.ndarray] = {}
        for spec in self.inputs:
            array = self._pool[spec.name]
            for axis, dim in enumerate(spec.shape):
                if isinstance(dim, str):
                    start = seed if dim == self._batch else 0
                    array = array.take((np.arange(sizes[dim]) + start) % array.shape[axis], axis)
            if is_lengths(spec):  # a sample that was cut is no longer than its dimension
                array = np.minimum(array, longest(self.inputs, sizes))
            feed[spec.name] = np.array(array, dtype=spec.dtype.numpy, order="C")
        return feed

    @functools.cached_property
    def _pool(self) -> "dict[str, np.ndarray]":
        """The first real feeds of one shape concatenated, up to the largest batch; empty without real data."""
        import numpy as np

        pool: dict[str, np.ndarray] = {}
        for feed in self.real if self.real is not None else ():
            if not pool:
                pool = dict(feed)
            elif all(pool[name].shape[1:] == array.shape[1:] for name, array in feed.items()):
                pool = {name: np.concatenate([pool[name], array]) for name, array in feed.items()}
            if self._batch is None or len(next(iter(pool.values()))) >= self._largest:
                break
        return pool
