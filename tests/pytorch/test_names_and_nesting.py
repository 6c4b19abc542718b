"""Outputs and inputs keep their declared names in the file, and nested parameters take flat tensors with dots in their names."""

from pathlib import Path

import numpy as np
import pytest
import torch

from optkit import onnx_file
from optkit.artifact import Artifact
from optkit.artifact.tensors import DimRange
from optkit.checks import Prover, Requirements
from optkit.data import Samples
from optkit.errors import ModelError, StageError
from optkit.pytorch.infer_inputs import infer_contract
from optkit.pytorch.source import make_source
from optkit.stages import ExportOnnx, ExportProgram, ExportTorchScript, Stage
from tests.support.zoo import specs

BATCH = {"batch": DimRange(min=1, opt=2, max=4)}
X = "x:float32[batch,8]"
MODELS = """
import torch
from torch import nn

class Same(nn.Module):
    def forward(self, x, state):
        return x * 2, state

class Twice(nn.Module):
    def forward(self, x):
        y = x + 1
        return y, y

class Buffers(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("y", torch.ones(8))
        self.linear = nn.Parameter(torch.ones(8))
        self.add = nn.Linear(8, 8)
    def forward(self, x):
        return self.add(x) + self.y, x * self.linear

class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.ones(3, 8))
    def forward(self, x):
        return x * 2, self.table

class Cache(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)
    def forward(self, x, past_key_values):
        (key, value), = past_key_values
        new = self.layer(x)
        return new + key * value, ((key + new, value + 1),)

class Named(nn.Module):
    def forward(self, x, state):
        return x + state["hidden"] * state["cells"][0] - state["cells"][1]
"""


def source_of(name: str, tmp_path: Path, inputs: tuple[str, ...], outputs: tuple[str, ...] | None = None) -> Artifact:
    (tmp_path / "model.py").write_text(MODELS)
    return make_source(f"{tmp_path / 'model.py'}:{name}", tmp_path / "source", specs(*inputs), BATCH, outputs=outputs)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("Same", (X, "state:float32[batch,8]"), ("y", "new_state")),  # an input returned
        ("Twice", (X,), ("first", "second")),
        ("Buffers", (X,), ("y", "linear")),  # named like a buffer and a parameter
        ("Buffers", (X,), ("add", "mul")),  # like a layer and a node
        ("Table", (X,), ("y", "table")),  # a buffer returned under its name
    ],
)
def test_declared_names_are_those_of_the_file(
    name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], exporter: str, tmp_path: Path
) -> None:
    source = source_of(name, tmp_path, inputs, outputs)
    made = ExportOnnx.model_validate({"exporter": exporter}).run(source, tmp_path / "out")
    facts = onnx_file.facts(made.path)
    assert tuple(spec.name for spec in facts.outputs) == outputs
    assert tuple(spec.name for spec in facts.inputs) == tuple(spec.name for spec in source.inputs)
    assert Prover(source, Samples(source.inputs, source.dims), Requirements()).parity(made).passed


CACHE = (X, "past_key_values.0.0:float32[batch,8]", "past_key_values.0.1:float32[batch,8]")
NAMED = (X, "state.hidden:float32[batch,8]", "state.cells.0:float32[batch,8]", "state.cells.1:float32[batch,8]")
STAGES: list[Stage] = [
    ExportOnnx(exporter="dynamo"),
    ExportOnnx(exporter="torchscript"),
    ExportTorchScript(),
    ExportProgram(),
]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: f"{stage.stage}-{getattr(stage, 'exporter', '')}")
@pytest.mark.parametrize(("name", "inputs"), [("Cache", CACHE), ("Named", NAMED)])
def test_nested_parameters_take_flat_tensors(name: str, inputs: tuple[str, ...], stage: Stage, tmp_path: Path) -> None:
    source = source_of(name, tmp_path, inputs)
    made = stage.run(source, tmp_path / "out")
    parity = Prover(source, Samples(source.inputs, source.dims), Requirements()).parity(made)
    assert parity.passed, parity.failure
    assert [spec.name for spec in made.inputs] == [text.partition(":")[0] for text in inputs]


def test_nested_example_inputs_get_names_with_dots() -> None:
    x = torch.ones(2, 8)
    found = infer_contract({"x": x, "past_key_values": ((x, x),), "state": {"hidden": x}}, torch.nn.Identity())
    assert [spec.name for spec in found.inputs] == ["x", "past_key_values.0.0", "past_key_values.0.1", "state.hidden"]
    with pytest.raises(ModelError, match=r"example input 'past\.0': is a str; expected a tensor or an array"):
        infer_contract({"x": x, "past": ("a",)}, torch.nn.Identity())


def test_too_many_flat_inputs_are_told_how_nested_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"If a parameter takes nested tensors, name each with dots, as past_key_values\.0\.1"
    ):
        source_of("Cache", tmp_path, (X, "key:float32[batch,8]", "value:float32[batch,8]"))


def test_one_array_file_is_the_feed_of_one_input(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(16, dtype=np.float32).reshape(2, 8))
    found = Samples.of(str(tmp_path / "x.npy"), specs(X), BATCH).at({"batch": 2})
    assert found["x"].tolist() == np.arange(16).reshape(2, 8).tolist()
    (tmp_path / "folder").mkdir()
    for i in range(3):
        np.save(tmp_path / "folder" / f"{i}.npy", np.full((1, 8), i, np.float32))
    assert Samples.of(str(tmp_path / "folder"), specs(X), BATCH).at({"batch": 3})["x"][:, 0].tolist() == [0, 1, 2]
    with pytest.raises(Exception, match=r"x\.npy: feed 0: has 1 arrays; expected 2: x, state"):
        Samples.of(str(tmp_path / "x.npy"), specs(X, "state:float32[batch,8]"), BATCH).at({"batch": 2})
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(Exception, match=r"bad\.npy: (cannot be read as|damaged) \.npy"):
        Samples.of(str(tmp_path / "bad.npy"), specs(X), BATCH).at({"batch": 2})


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("function", ["sort", "argsort"])
def test_an_argument_that_onnx_lacks_is_named(function: str, exporter: str, tmp_path: Path) -> None:
    index = "[0]" if function == "sort" else ".float()"
    code = f"""
import torch
class Model(torch.nn.Module):
    def forward(self, x):
        return torch.{function}(x, dim=-1, stable=True){index}
"""
    (tmp_path / "model.py").write_text(code)
    source = make_source(f"{tmp_path / 'model.py'}:Model", tmp_path / "source", specs(X), BATCH)
    with pytest.raises(
        StageError, match=r"model\.py:5: .*ONNX has torch\.sort .* not their argument stable=True: leave it out"
    ):
        ExportOnnx.model_validate({"exporter": exporter}).run(source, tmp_path / "out")
