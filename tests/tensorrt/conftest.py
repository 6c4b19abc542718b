"""What the tests of engines share: the command line, and small models to build."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from optkit.artifact import Artifact
from optkit.stages import ExportOnnx
from tests.support.project import CommandLine, command_line
from tests.support.zoo import Make


@pytest.fixture
def optkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[CommandLine]:
    yield from command_line(monkeypatch, capsys)


@pytest.fixture
def linear(make: Make, tmp_path: Path) -> Artifact:
    """A linear layer as an ONNX file of this test, batch 1 to 16; its passport is beside it."""
    made = make("linear", ExportOnnx(exporter="torchscript", opset=17))
    folder = tmp_path / "source"
    folder.mkdir()
    path = folder / "linear.onnx"
    path.write_bytes(made.path.read_bytes())
    return made.model_copy(update={"path": path})


@pytest.fixture
def conv(make: Make) -> Artifact:
    """A convolution as an ONNX file, shared by the session. Do not change it."""
    return make("conv", ExportOnnx(exporter="torchscript", opset=17))
