"""Zip files of others: TorchServe archives, .npz files and state dicts that are damaged, or unpack to too much."""

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from optkit.artifact.tensors import TensorSpec
from optkit.data import Feeds
from optkit.errors import FeedError, ModelError, OptkitError
from optkit.pytorch.weights import load_weights
from optkit.serving.migrate.archive import open_mar
from optkit.untrusted import archives
from optkit.untrusted.archives import read_npz, size_fault, zip_fault
from tests.support.hostile import within

MANIFEST = json.dumps({"model": {"modelName": "m", "handler": "h.py"}}).encode()


def zeros(path: Path, mib: int, **others: bytes) -> Path:
    """Write a zip file with a member of zeros, which shrinks to a thousandth."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in others.items():
            archive.writestr(name, content)
        with archive.open("x.npy", "w") as member:
            for _ in range(mib):
                member.write(bytes(2**20))
    return path


def of_size(count: int, size: int) -> list[zipfile.ZipInfo]:
    infos = [zipfile.ZipInfo(str(i)) for i in range(count)]
    for info in infos:
        info.file_size = size
    return infos


@pytest.mark.parametrize(
    ("infos", "packed", "says"),
    [
        (of_size(3, 2**20), 2**20, None),
        (of_size(1, 2**28), 1000, None),  # few bytes, whatever the ratio
        (of_size(1, 2**28 + 1), 1000, r"has 1000 bytes and 268435457 unpacked; expected at most 100 times its size"),
        (of_size(8, 2**33), 2**36, None),  # 64 GiB that are stored
        (of_size(9, 2**33), 2**37, r"holds 77309411328 bytes unpacked; expected at most 68719476736"),
        (of_size(10_001, 0), 2**20, r"holds 10001 files; expected at most 10000"),
    ],
)  # fmt: skip
def test_number_size_and_ratio_have_limits(infos: list[zipfile.ZipInfo], packed: int, says: str | None) -> None:
    assert size_fault([info.file_size for info in infos], packed) == says


@pytest.mark.parametrize(
    "read",
    [
        lambda path: open_mar(path, path.parent / "unpacked"),
        read_npz,
        lambda path: list(Feeds(str(path), (TensorSpec(name="x", dtype="float32", shape=(1,)),))),
        lambda path: load_weights(torch.nn.Linear(1, 1), path),
    ],
    ids=["mar", "npz", "feeds", "weights"],
)
def test_what_unpacks_to_too_much_is_refused_before_it_is_unpacked(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    (tmp_path / "unpacked").mkdir()
    path = zeros(tmp_path / "bomb.npz", 260)
    with within(20), pytest.raises(OptkitError, match=r"bomb\.npz: has \d+ bytes and 272629760 unpacked"):
        read(path)
    assert not list((tmp_path / "unpacked").iterdir())


def test_an_archive_that_does_not_fit_on_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zeros(tmp_path / "m.mar", 1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(OptkitError, match=r"has 0\.0 MiB left; the unpacked m\.mar needs 1\.0 MiB"):
        open_mar(path, tmp_path / "unpacked")


def damaged(content: bytes) -> bytes:
    """Return a zip file whose first member has other bytes in its compressed data."""
    start = 30 + content[26] + content[28]  # behind the header and the name
    return content[: start + 2] + bytes(byte ^ 0x55 for byte in content[start + 2 : start + 20]) + content[start + 20 :]


def test_a_damaged_member_is_an_error_of_the_file(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("MAR-INF/MANIFEST.json", MANIFEST * 20)
    (tmp_path / "m.mar").write_bytes(damaged(stream.getvalue()))
    (tmp_path / "to").mkdir()
    with pytest.raises(OptkitError, match=r"m\.mar: cannot be read as a TorchServe archive, which is a zip file \("):
        open_mar(tmp_path / "m.mar", tmp_path / "to")
    stream = io.BytesIO()
    np.savez_compressed(stream, x=np.arange(1000))
    (tmp_path / "x.npz").write_bytes(damaged(stream.getvalue()))
    with pytest.raises(OptkitError, match=r"x\.npz: cannot be read as \.npz \("):
        read_npz(tmp_path / "x.npz")


def test_a_pickle_in_an_npz_is_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.array([{}], dtype=object))
    with pytest.raises(FeedError, match=r"x\.npz: cannot be read as \.npz \(it holds pickled objects"):
        read_npz(tmp_path / "x.npz", FeedError)


@pytest.mark.parametrize("name", [None, ".", "fifo"])
def test_what_is_no_file_is_no_npz(name: str | None, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    path = tmp_path / (name or "a" * 300)
    with within(5), pytest.raises(FeedError, match=r"cannot be read as \.npz \((is a|cannot be looked at)"):
        read_npz(path, FeedError)
    with within(5):
        assert zip_fault(path) is None


@pytest.mark.parametrize(
    ("weight", "says"),
    [
        (
            torch.zeros(3, 4, device="meta"),
            r"cannot be copied into the model \(Error\(s\) in loading state_dict for Linear: While",
        ),
        (torch.zeros(3, 4).to_sparse(), r"cannot be copied into the model"),
        (torch.zeros(3, 4, dtype=torch.complex64), "weight has complex numbers"),
    ],
    ids=["meta", "sparse", "complex"],
)
@pytest.mark.filterwarnings("ignore")
def test_weights_of_another_kind(weight: torch.Tensor, says: str, tmp_path: Path) -> None:
    torch.save({"weight": weight, "bias": torch.zeros(3)}, tmp_path / "w.pt")
    module = torch.nn.Linear(4, 3)
    with pytest.raises(ModelError, match=says):
        load_weights(module, tmp_path / "w.pt")


def test_the_limits_stand_in_one_place() -> None:
    assert (archives.MAX_BYTES, archives.MAX_FILES, archives.MAX_RATIO) == (64 * 2**30, 10_000, 100)
