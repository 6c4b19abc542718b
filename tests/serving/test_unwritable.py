"""Places that cannot be written, for each kind of package: a clear error, and nothing of it left."""

import contextlib
import subprocess
from pathlib import Path

import numpy as np
import pytest

from optkit.artifact.findings import BatchIndependence
from optkit.data import Samples
from optkit.errors import OutputError
from optkit.serving import (
    TorchServeServing,
    TritonPythonServing,
    TritonServing,
    make_golden,
    package_function,
    package_torchserve,
    package_triton,
)
from optkit.serving.torchserve.golden import archive_golden
from tests.support.project import files_below

PROVEN = BatchIndependence(dim="batch")


@contextlib.contextmanager
def mounted(folder, options):
    """A small file system of its own: root writes through permissions, and not through this."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture(params=["triton", "torchserve", "function"])
def write(request, onnx, tmp_path):
    """Return write(folder) for each kind of package."""
    if request.param == "function":
        code = tmp_path / "code/f.py"
        code.parent.mkdir()
        code.write_text("def f(feed):\n    return {'y': feed['x']}\n")
        np.save(code.parent / "big.npy", np.zeros(100_000))
        settings = TritonPythonServing(
            function=f"{code}:f",
            inputs={"x": "float32[2]"},
            outputs={"y": "float32[2]"},
            extra_files=(str(code.parent / "big.npy"),),
        )
        return lambda folder: package_function(settings, folder, {}, Samples(settings.inputs, {}), force=False)
    samples = Samples(onnx.inputs, onnx.dims)
    if request.param == "triton":
        return lambda folder: package_triton(
            onnx, folder, TritonServing(), name="m", independence=PROVEN, sample=None, golden=make_golden(onnx, samples)
        )
    return lambda folder: package_torchserve(
        onnx, folder, TorchServeServing(), name="m", independence=PROVEN, golden=archive_golden(onnx, samples, None)
    )


def test_a_read_only_file_system(write, tmp_path):
    with mounted(tmp_path / "ro", "ro") as folder:
        for target in (folder, folder / "sub"):
            with pytest.raises(OutputError, match=f"{target}: cannot be written .Read-only file system"):
                write(target)


def test_a_full_disk_leaves_nothing(write, tmp_path):
    with mounted(tmp_path / "full", "size=8k") as folder:
        with pytest.raises(OutputError, match=f"{folder}: (cannot be written .No space left on device|the disk has )"):
            write(folder)
        assert files_below(folder) == set()


def test_a_file_in_the_way(write, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(OutputError, match="file: is a file; expected a folder to write to"):
        write(file)
    with pytest.raises(OutputError, match=r"file/sub: cannot be written .Not a directory"):
        write(file / "sub")
    assert file.read_text() == "mine"


def test_a_file_where_the_model_goes(onnx, tmp_path):
    Path(tmp_path / "m").write_text("mine")
    with pytest.raises(OutputError, match="m: is a file; expected a folder or nothing"):
        package_triton(onnx, tmp_path, TritonServing(), name="m", independence=PROVEN, sample=None, force=True)
    assert files_below(tmp_path) == {"m"}
