"""Zip files of others: TorchServe archives, .npz files and state dicts are all zip files, with limits on what they unpack to."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.errors import ArtifactError, OptkitError, first_line
from optkit.untrusted.paths import path_fault

if TYPE_CHECKING:
    import numpy as np

MAX_BYTES = 64 * 2**30  # of all unpacked files together
MAX_FILES = 10_000
MAX_RATIO = 100  # weights shrink by a few percent, a file of zeros to a thousandth
_ANY_RATIO_BYTES = 256 * 2**20  # masks of zeros may be this large


def size_fault(sizes: Sequence[int], packed_bytes: int) -> str | None:
    """Return why the members of an archive must not be unpacked, by their number and sizes; None if they may.

    Args:
        sizes: of the unpacked members; zipfile never unpacks more bytes than an entry states.
        packed_bytes: the size of the archive.
    """
    if len(sizes) > MAX_FILES:
        return f"holds {len(sizes)} files; expected at most {MAX_FILES}"
    total = sum(sizes)
    if total > MAX_BYTES:
        return f"holds {total} bytes unpacked; expected at most {MAX_BYTES}"
    if total > max(_ANY_RATIO_BYTES, MAX_RATIO * packed_bytes):
        return f"has {packed_bytes} bytes and {total} unpacked; expected at most {MAX_RATIO} times its size"
    return None


def zip_fault(path: Path) -> str | None:
    """Return why a zip file must not be unpacked; None if it may, or if it cannot be read as a zip file, which its reader reports."""
    if path_fault(path):
        return None
    try:
        with zipfile.ZipFile(path) as opened:
            return size_fault([info.file_size for info in opened.infolist()], path.stat().st_size)
    except Exception:  # BadZipFile, OSError, NotImplementedError and more
        return None


def read_npz(path: Path, kind: type[OptkitError] = ArtifactError) -> "dict[str, np.ndarray]":
    """Return the arrays of a .npz file by name. Pickled objects are not loaded.

    Raises:
        OptkitError: of this kind. The file is missing, damaged, or not a .npz file.
    """
    import numpy as np

    if fault := path_fault(path):
        raise kind(f"{path}: cannot be read as .npz ({fault})")
    if fault := zip_fault(path):
        raise kind(f"{path}: {fault}")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as e:  # OSError, ValueError, zipfile.BadZipFile, zlib.error and others have no common base class
        # numpy takes any other file for a pickle, and advises to load it unsafely.
        pickled = "pickle" in str(e)
        reason = "it holds pickled objects, which are not loaded, or is not a .npz file" if pickled else first_line(e)
        raise kind(f"{path}: cannot be read as .npz ({reason})") from e
