"""A disk without room is reported before a stage or a package writes, not by a half-written file."""

import collections
from pathlib import Path

import pytest

from optkit.artifact import Artifact
from optkit.artifact.findings import BatchIndependence
from optkit.errors import OutputError
from optkit.pytorch.source import copy_onnx_source
from optkit.serving import TorchServeServing, TritonServing, package_torchserve, package_triton
from optkit.stages import ConvertFp16, ExportOnnx, ExportProgram, ExportTorchScript, QuantizeDynamic, Stage
from tests.support.project import files_below
from tests.support.zoo import Make

Usage = collections.namedtuple("Usage", "total used free")


@pytest.fixture
def full(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    make("linear", ExportOnnx(exporter="torchscript", opset=17))  # before the disk is full
    monkeypatch.setattr("optkit.system.space.shutil.disk_usage", lambda _: Usage(100, 90, 10))


@pytest.mark.parametrize(
    ("stage", "of_onnx"),
    [
        (ExportOnnx(exporter="torchscript"), False),
        (ExportOnnx(exporter="dynamo"), False),
        (ExportTorchScript(), False),
        (ExportProgram(), False),
        (ConvertFp16(), True),
        (QuantizeDynamic(), True),
    ],
    ids=lambda value: f"{value.stage} {getattr(value, 'exporter', '')}" if isinstance(value, Stage) else "",
)
@pytest.mark.usefixtures("full")
def test_a_stage(stage: Stage, of_onnx: bool, make: Make, onnx_linear: Artifact, tmp_path: Path) -> None:
    source = onnx_linear if of_onnx else make("linear")
    with pytest.raises(
        OutputError, match=r"the disk has 0\.0 MiB left; the .* needs 0\.0 MiB\. Free some space, or choose"
    ):
        stage.run(source, tmp_path / "out")
    assert files_below(tmp_path) == {"out"}


@pytest.mark.usefixtures("full")
def test_the_copy_of_a_source_and_packages(onnx_linear: Artifact, tmp_path: Path) -> None:
    proven = BatchIndependence(dim="batch")
    with pytest.raises(OutputError, match=r"the disk has 0\.0 MiB left; the copy of the model needs"):
        copy_onnx_source(onnx_linear.path, tmp_path / "source", onnx_linear.dims)
    with pytest.raises(OutputError, match=r"the disk has 0\.0 MiB left; the package needs"):
        package_triton(
            onnx_linear, tmp_path / "triton", TritonServing(client=False), name="m", independence=proven, sample=None
        )
    with pytest.raises(OutputError, match=r"the disk has 0\.0 MiB left; the archive needs"):
        package_torchserve(
            onnx_linear, tmp_path / "store", TorchServeServing(client=False), name="m", independence=proven
        )
    assert files_below(tmp_path) == set()
