"""Small real artifacts, made once by optkit's own stages; generated clients as modules."""

import importlib
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from optkit.artifact import Artifact
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.pytorch.source import make_source
from optkit.stages import ExportOnnx, ExportTorchScript, QuantizeTorch

MODELS = """
    import torch
    from torch import nn

    class Digits(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 3)
        def forward(self, x):
            return self.linear(x.flatten(1))

    class Two(nn.Module):
        def forward(self, ids, mask):
            return ids.float() * mask.float().unsqueeze(-1), mask.float() * 2

    class Named(nn.Module):
        def forward(self, x):
            return {"double": 2 * x, "half": x / 2}

    class Total(nn.Module):
        def forward(self, x):
            return x.sum()

    class Heavy(nn.Module):
        # takes and gives what Digits does, with some hundred times the work
        def __init__(self):
            super().__init__()
            self.first, self.middle, self.last = nn.Linear(6, 128 * 512), nn.Linear(512, 512), nn.Linear(512, 3)
        def forward(self, x):
            rows = self.first(x.flatten(1)).reshape(-1, 128, 512)
            for _ in range(4):
                rows = torch.tanh(self.middle(rows))
            return self.last(rows.mean(1))

    class Pictures(nn.Module):
        def forward(self, image):
            return image.float().mean((2, 3))

    def digits(): return Digits()
    def heavy(): return Heavy()
    def pictures(): return Pictures()
    def two(): return Two()
    def named(): return Named()
    def total(): return Total()
"""


class Zoo:
    """Makes a source artifact of a model above, and exports of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.code = folder / "models.py"
        self.code.write_text(textwrap.dedent(MODELS), encoding="utf-8")

    def source(self, model: str, inputs: list[str], **dims: str) -> Artifact:
        specs = [TensorSpec.parse(text) for text in inputs]
        ranges = {name: DimRange.parse(text) for name, text in dims.items()}
        name = f"{model}-{'-'.join(dims.values()).replace(':', '.')}"
        return make_source(f"{self.code}:{model}", self.folder / name / "source", specs, ranges)

    def onnx(self, source: Artifact) -> Artifact:
        stage = ExportOnnx(exporter="torchscript", opset=17)
        return stage.run(source, source.path.parent.parent / "onnx")

    def torchscript(self, source: Artifact) -> Artifact:
        return ExportTorchScript().run(source, source.path.parent.parent / "torchscript")


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return Zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="session")
def digits(zoo: Zoo) -> Artifact:
    return zoo.source("digits", ["image:float32[batch,2,3]"], batch="1:4:16")


@pytest.fixture(scope="session")
def onnx(zoo: Zoo, digits: Artifact) -> Artifact:
    return zoo.onnx(digits)


@pytest.fixture(scope="session")
def torchscript(zoo: Zoo, digits: Artifact) -> Artifact:
    return zoo.torchscript(digits)


@pytest.fixture(scope="session")
def int8(digits: Artifact, sample: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The same model as INT8 TorchScript."""
    folder = tmp_path_factory.mktemp("int8")
    np.savez(folder / "sample.npz", **sample)
    return QuantizeTorch(mode="static", calibration=str(folder)).run(digits, folder / "made")


@pytest.fixture(scope="session")
def two(zoo: Zoo) -> Artifact:
    """Two inputs of 1 and 0 dimensions a sample; the second output is one number a sample."""
    return zoo.source("two", ["ids:int64[batch,seq]", "mask:bool[batch]"], batch="1:2:8", seq="1:5:9")


@pytest.fixture(scope="session")
def sample() -> dict[str, np.ndarray]:
    return {"image": np.arange(18, dtype=np.float32).reshape(3, 2, 3) / 10}


@pytest.fixture(scope="session")
def external(onnx: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The same ONNX model with its weights in a second file."""
    import onnx as library

    from optkit import onnx_file

    path = tmp_path_factory.mktemp("external") / "digits.onnx"
    model = library.load(str(onnx.path))
    library.save_model(model, str(path), save_as_external_data=True, location="digits.onnx.data", size_threshold=0)
    return onnx_file.describe(path, onnx.dims)


@pytest.fixture
def load():
    """Return load(folder): the package of a client, imported again."""
    loaded = []

    def loading(folder):
        name = folder.name
        sys.path.insert(0, str(folder.parent))
        try:
            for known in [known for known in sys.modules if known == name or known.startswith(f"{name}.")]:
                del sys.modules[known]
            loaded.append(name)
            return importlib.import_module(name)
        finally:
            sys.path.remove(str(folder.parent))

    yield loading
    for name in loaded:
        for known in [known for known in sys.modules if known == name or known.startswith(f"{name}.")]:
            del sys.modules[known]
