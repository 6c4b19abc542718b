"""A stranger's model, in a folder with no package: the first command either exports it, or prints the one that does."""

import shlex
from pathlib import Path

import onnx
import pytest

from tests.support.project import CommandLine

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, size{default}):
        super().__init__()
        self.fc = nn.Linear(size, 2)

    def forward(self, features):
        return self.fc(features)
"""
SHAPES = {
    "class": NET.format(default="=4"),
    "factory": NET.format(default="") + "\ndef create_model(hidden=4):\n    return Net(hidden)\n",
    "instance": NET.format(default="") + "\nmodel = Net(4)\n",
    "script": NET.format(default="=4") + "\nif __name__ == '__main__':\n    raise SystemExit('trained')\n",
    "arguments": NET.format(default=""),
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("shape", SHAPES)
def test_each_error_prints_the_command_that_goes_on(optkit: CommandLine, here: Path, shape: str) -> None:
    (here / "model.py").write_text(SHAPES[shape])
    arguments = ["export", "onnx", "model.py", "-o", "m.onnx", "--exporter", "torchscript"]
    errors = []
    while (found := optkit(*arguments)).code:
        assert found.code == 2
        errors.append(found.err)
        line = found.err.rstrip().splitlines()[-1]
        assert line.startswith("Run: optkit export onnx model.py -o m.onnx")
        arguments = shlex.split(line.replace("size=VALUE", "size=4"))[2:]
        assert len(errors) < 4
    assert len(errors) == (2 if shape == "arguments" else 1)
    assert "forward takes features" in errors[-1]
    assert (
        f"used {({'factory': 'create_model', 'instance': 'model'}).get(shape, 'Net')}, the model that model.py defines"
        in found.err
    )
    assert [value.name for value in onnx.load("m.onnx").graph.input] == ["features"]


def test_a_dimension_without_a_range_is_proposed_one(optkit: CommandLine, here: Path) -> None:
    (here / "model.py").write_text(SHAPES["class"])
    found = optkit("export", "onnx", "model.py", "-o", "m.onnx", "--input", "features:float32[batch,4]")
    assert found.code == 2
    assert "dimension 'batch': used by an input but has no range" in found.err
    last = found.err.rstrip().splitlines()[-1]
    assert last == "Run: optkit export onnx model.py -o m.onnx --input 'features:float32[batch,4]' --dim batch=1:8:64"


def test_arguments_without_a_default_are_named_with_their_option(optkit: CommandLine, here: Path) -> None:
    (here / "model.py").write_text(SHAPES["arguments"])
    found = optkit("export", "onnx", "model.py:Net", "-o", "m.onnx")
    assert found.code == 2
    assert "model.py:Net: takes size without a default. Give each with --set" in found.err
    assert found.err.rstrip().endswith("Run: optkit export onnx model.py:Net -o m.onnx --set size=VALUE")


CONSTANT = """
import torch
from torch import nn

class Flow(nn.Module):
    def forward(self, x):
        prior = torch.distributions.Normal(torch.zeros(4), 1.0)
        return prior.log_prob(x).sum(-1)

class Branch(nn.Module):
    def forward(self, x):
        scale = torch.tensor(2.0) if x.sum() > -1e9 else torch.tensor(3.0)
        return x * scale
"""


def export_constant(optkit: CommandLine, here: Path, name: str, *more: str):
    (here / "model.py").write_text(CONSTANT)
    inputs = ("--input", "x:float32[batch,4]", "--dim", "batch=1:4:8")
    return optkit("export", "onnx", f"model.py:{name}", "-o", "m.onnx", *inputs, *more)


def test_a_tensor_of_a_constant_is_no_baked_in_value(optkit: CommandLine, here: Path) -> None:
    assert export_constant(optkit, here, "Flow", "--exporter", "torchscript", "--strict").code == 0
    found = export_constant(optkit, here, "Flow", "--force")
    assert found.code == 0
    assert "baked in" not in found.out + found.err


def test_a_branch_that_makes_such_tensors_is_baked_in_still(optkit: CommandLine, here: Path) -> None:
    found = export_constant(optkit, here, "Branch", "--exporter", "torchscript", "--strict")
    assert found.code == 2
    assert "the trace baked in a value: Converting a tensor to a Python boolean" in found.err
