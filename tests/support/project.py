"""A tiny project as a user has one, a recipe beside its code, and optkit's own command line run on it in this process."""

import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from optkit.cli import main
from optkit.pipeline.plan import make_plan
from optkit.pipeline.records import RunRecord
from optkit.pipeline.run import run
from optkit.pytorch import source
from optkit.recipe import load_recipe

CODE = '''\
"""What the recipe's targets name."""

import numpy as np
import torch

SCALE = 2.0


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x):
        return SCALE * self.linear(x)


def build():
    return Model()


def calibration():
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((8, 4)).astype(np.float32)} for _ in range(4)]


def evaluate(predict):
    return float(predict(calibration()[0])["output"].std() > 0)
'''

TORCHSCRIPT = {"stage": "export-torchscript"}
ONNX = {"stage": "export-onnx", "exporter": "torchscript", "opset": 17}
DYNAMIC = {"stage": "quantize-dynamic", "after": "export-onnx"}
STATIC = {"stage": "quantize-static", "after": "export-onnx"}
BENCH = {"batches": [2], "block_s": 0, "block_calls": 2, "drop_s": 0, "drop_calls": 1, "min_blocks": 2, "max_blocks": 2}
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "model": {"source": "model.py:build"},
    "inputs": {"x": "float32[batch, 4]"},
    "dims": {"batch": "1:4:8"},
    "steps": [TORCHSCRIPT, ONNX],
    "bench": BENCH,
}


def write_project(folder: Path, **keys: Any) -> Path:
    """Write the code and a recipe with these keys over the usual ones, and return the recipe's path."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model.py").exists():
        (folder / "model.py").write_text(CODE)
    return write_recipe(folder / "recipe.yaml", **keys)


def write_recipe(path: Path, **keys: Any) -> Path:
    """Write a recipe; a key that is None is left out."""
    content = {key: value for key, value in (RECIPE | keys).items() if value is not None}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def edit(file: Path, old: str, new: str) -> None:
    """Replace a text that the file must hold."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def files_below(folder: Path) -> set[str]:
    """Return every file and folder, hidden ones too, but not what Python caches."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if "__pycache__" not in p.parts}


@dataclass(frozen=True)
class Result:
    """What a command came to."""

    code: int
    out: str
    err: str


class CommandLine:
    """Calls optkit's `main` as the console script does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Result:
        self._monkeypatch.setattr(sys, "argv", ["optkit", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = self._capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return Result(exit_.value.code, out, err)


def command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[CommandLine]:
    """Give the command line, and take back afterwards what it does to logging; for a fixture to yield from."""
    logs = [logging.getLogger(), logging.getLogger("optkit")]
    before = [(log, list(log.handlers), log.level, log.propagate) for log in logs]
    yield CommandLine(monkeypatch, capsys)
    for log, handlers, level, propagate in before:
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)


def carry_out(recipe: Path, *, fresh: bool = False, only: str | None = None) -> RunRecord:
    """Run a recipe with the folder `out` beside it."""
    plan = make_plan(load_recipe(recipe), recipe.parent / "out", only)
    return run(plan, fresh=fresh, finish=only is None)


def statuses(record: RunRecord) -> dict[str, str]:
    """Return step -> what became of it."""
    return {step.name: step.status for step in (record.source, *record.steps)}


def forget_modules() -> None:
    """Forget the modules that were built, as a new process has."""
    for function in vars(source).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()
