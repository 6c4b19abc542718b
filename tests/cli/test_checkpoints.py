"""Checkpoints as people have them, from the command line and in a recipe."""

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from optkit.cli.app import app
from optkit.recipe import load_recipe

MODEL = """
import torch
def build():
    return torch.nn.Sequential(torch.nn.Linear(4, 3))
"""
EXPORT = ["export", "torchscript", "model.py:build", "--input", "x:float32[batch,4]", "--dim", "batch=1:2:4"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for key, value in (("model", 1.0), ("ema", 2.0)):
        state = {"module.0.weight": torch.full((3, 4), value), "module.0.bias": torch.zeros(3)}
        previous = torch.load(tmp_path / "home" / "w.pt") if (tmp_path / "home" / "w.pt").exists() else {}
        torch.save(previous | {key: state}, tmp_path / "home" / "w.pt")
    return tmp_path


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
@pytest.mark.parametrize("spelling", [["--weights", "~/w.pt"], ["--weights=~/w.pt"]])
@pytest.mark.parametrize(("key", "value"), [([], 4.0), (["--weights-key", "ema"], 8.0), (["--weights-key=model"], 4.0)])
def test_weights_in_the_home_folder_and_their_key(
    spelling: list[str], key: list[str], value: float, home: Path
) -> None:
    found = CliRunner().invoke(app, [*EXPORT, "-o", "m.pt", *spelling, *key])
    assert found.exit_code == 0, found.output
    assert "the prefix 'module.' of every name was removed" in found.output
    assert ("the state dict 'model' of model, ema" in found.output) is not bool(key)
    module = torch.jit.load(str(home / "m.pt"))
    np.testing.assert_allclose(module(torch.ones(1, 4)).detach(), [[value] * 3])


def test_a_key_that_is_not_there_is_refused_with_those_that_are(home: Path) -> None:
    found = CliRunner().invoke(app, [*EXPORT, "-o", "m.pt", "--weights", "~/w.pt", "--weights-key", "best"])
    assert isinstance(found.exception, Exception) or found.exit_code == 2
    assert "has no state dict 'best'; it has model, ema" in f"{found.output}{found.exception}"
    assert not (home / "m.pt").exists()


def test_a_recipe_takes_the_home_folder_and_the_key(home: Path) -> None:
    (home / "recipe.yaml").write_text(
        "name: m\nmodel: {source: model.py:build, weights: ~/w.pt, weights_key: ema}\ninputs: {x: 'float32[batch,4]'}\n"
        "dims: {batch: '1:2:4'}\nsteps: [{stage: export-torchscript}]\n"
    )
    keys = load_recipe(home / "recipe.yaml")
    assert keys.model.weights == str(home / "home" / "w.pt")
    assert keys.model.weights_key == "ema"
