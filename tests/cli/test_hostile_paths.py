"""Paths from users, in every option of every command: too long, a FIFO, a device, a folder, a home that there is not. Exit 2, and no waiting."""

import os
from pathlib import Path

import pytest

from optkit.artifact import Artifact
from tests.support.hostile import within
from tests.support.project import CommandLine, write_project

DIM = ("--dim", "batch=1:2:4")
CODE = ("model.py:build", "--input", "x:float32[batch,4]", *DIM)
DATA = ("--data", "PATH.npz")
# PATH stands for the path; PATH.npz for one whose name ends so.
READ = [
    ("run", "PATH"), ("run", "recipe.yaml", "-o", "out", "--set", "model.source=PATH"), ("run", "recipe.yaml", "-o", "out", "--set", "model.source=PATH.onnx"),
    ("run", "recipe.yaml", "-o", "out", "--set", "model.source=PATH.pt"), ("run", "recipe.yaml", "-o", "out", "--set", "model.weights=PATH"),
    ("run", "recipe.yaml", "-o", "out", "--set", "gates.baseline=PATH"), ("run", "recipe.yaml", "-o", "out", "--set", "data.calibration=PATH.npz"),
    ("run", "recipe.yaml", "-o", "out", "--set", "data.calibration=PATH.yaml"),     ("inspect", "PATH"), ("inspect", "PATH.onnx"), ("doctor", "PATH"),
    ("check", "PATH", "m.onnx", *DIM), ("check", "PATH.onnx", "m.onnx", *DIM), ("check", "m.onnx", "PATH", *DIM), ("check", "m.onnx", "m.onnx", *DIM, *DATA),
    ("bench", "PATH.onnx", *DIM), ("bench", "PATH", *DIM), ("bench", "m.onnx", *DIM, *DATA), ("bench", "m.onnx", *DIM, "--baseline", "PATH"),
    ("compare", "PATH", "PATH"), ("report", "PATH"), ("lint", "PATH"), ("smoke", "PATH"), ("smoke", "PATH.mar"), ("serve", "PATH"),
    ("migrate", "PATH", "-o", "repository"), ("migrate", "PATH.mar", "-o", "repository"),
    ("quantize", "PATH", "-o", "q.onnx", *DIM), ("quantize", "m.onnx", "-o", "q.onnx", *DIM, "--calibration", "PATH"),
    ("quantize", "m.onnx", "-o", "q.onnx", *DIM, "--calibration", "PATH.npz"), ("quantize", "m.onnx", "-o", "q.onnx", *DIM, "--calibration", "PATH.yaml"),
    ("quantize", "m.onnx", "-o", "q.onnx", *DIM, "--evaluate", "PATH.py:f"), ("convert", "fp16", "PATH", "-o", "q.onnx", *DIM),
    ("quantize-torch", "PATH.py:f", "-o", "q.onnx", "--calibration", "PATH.npz"), ("build-engine", "PATH", "-o", "q.plan", *DIM), ("build-engine", "PATH.onnx", "-o", "q.plan", *DIM),
    ("export", "onnx", "PATH", "-o", "q.onnx"), ("export", "onnx", "PATH.pt", "-o", "q.onnx"), ("export", "onnx", "PATH.pt2", "-o", "q.onnx"), ("export", "onnx", "PATH.py:f", "-o", "q.onnx"),
    ("export", "onnx", *CODE, "-o", "q.onnx", "--weights", "PATH"), ("export", "onnx", *CODE, "-o", "q.onnx", "--weights", "PATH.safetensors"),
    ("export", "torchscript", "model.py:build", "-o", "q.pt", "--example", "PATH.py:f"), ("export", "onnx", *CODE, "-o", "q.onnx", *DATA),
    ("package", "triton", "PATH", "-o", "repository", *DIM), ("package", "triton", "m.onnx", "-o", "repository", *DIM, *DATA),
    ("package", "triton-python", "PATH.py:f", "-o", "repository", "--input", "x:float32[2]", "--return", "y:float32[2]"),
    ("package", "torchserve", "PATH", "-o", "store", *DIM), ("package", "torchserve", "m.onnx", "-o", "store", *DIM, "--handler", "PATH"),
    ("package", "torchserve", "m.onnx", "-o", "store", *DIM, "--extra-file", "PATH"), ("package", "torchserve", "m.onnx", "-o", "store", *DIM, "--requirements", "PATH"),
    ("package", "torchserve", "m.onnx", "-o", "store", *DIM, "--class-names", "PATH"), ("package", "torchserve", "m.onnx", "-o", "store", *DIM, *DATA),
    ("loadtest", "http://127.0.0.1:9", "--model", "m", "--repository", "PATH"), ("loadtest", "http://127.0.0.1:9/predictions/m", "--body", "PATH"),
    ("ab", "http://127.0.0.1:9/models/a", "http://127.0.0.1:9/models/b", "--data", "PATH.npz"),
]  # fmt: skip
WRITTEN = [
    ("run", "recipe.yaml", "-o", "out", "--history", "PATH"), ("run", "recipe.yaml", "-o", "PATH"), ("quantize", "m.onnx", "-o", "PATH", *DIM), ("convert", "fp16", "m.onnx", "-o", "PATH", *DIM),
    ("export", "onnx", *CODE, "-o", "PATH"), ("export", "torchscript", *CODE, "-o", "PATH"),
    ("package", "triton", "m.onnx", "-o", "PATH", *DIM), ("package", "torchserve", "m.onnx", "-o", "PATH", *DIM),
    ("compare", "old.json", "old.json", "--junit", "PATH"), ("migrate", "a.mar", "-o", "PATH"),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnx_linear: Artifact) -> Path:
    """A folder with a model, its code and a recipe, and `fifo`, `device` and `folder` with every suffix."""
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    (tmp_path / "m.onnx").write_bytes(onnx_linear.path.read_bytes())
    (tmp_path / "old.json").write_text("{}")
    os.mkfifo(tmp_path / "pipe")
    for suffix in ("", ".onnx", ".npz", ".yaml", ".pt", ".pt2", ".mar", ".py", ".safetensors"):
        (tmp_path / f"fifo{suffix}").symlink_to("pipe")
        (tmp_path / f"device{suffix}").symlink_to("/dev/zero")
        (tmp_path / f"folder{suffix}").mkdir()
    return tmp_path


def ended(optkit: CommandLine, command: tuple[str, ...], path: str) -> None:
    with within(60):
        found = optkit(*(part.replace("PATH", path) for part in command))
    assert found.code == 2, (command, path, found)
    assert "Traceback" not in found.err
    assert len(found.err) < 20_000


PATHS = ["fifo", "device", "folder", "x" * 300, "~nobody-here/x"]
GROUPS = [READ[i : i + 15] for i in range(0, len(READ), 15)]


@pytest.mark.parametrize("commands", GROUPS, ids=lambda commands: commands[0][0])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:8])
def test_a_path_that_is_read(optkit: CommandLine, folder: Path, path: str, commands: list[tuple[str, ...]]) -> None:
    for command in commands:
        ended(optkit, command, path)
    assert not {"out", "q.onnx", "q.pt", "q.plan", "repository", "store"} & {p.name for p in folder.iterdir()}


@pytest.mark.parametrize(
    "path", ["fifo", "device", "m.onnx/x", "x" * 300, "y/" * 3000 + "x", "/dev/null/x"], ids=lambda path: path[:8]
)
def test_a_path_that_is_written(optkit: CommandLine, folder: Path, path: str) -> None:
    for command in WRITTEN:
        ended(optkit, command, path)


@pytest.mark.parametrize("path", ["a\0b", "\ud800"], ids=ascii)
def test_a_path_that_no_shell_can_give(path: str, folder: Path) -> None:
    import optkit as library

    calls = [
        lambda: library.inspect(path), lambda: library.bench([path]), lambda: library.check(path, path), lambda: library.lint(path),
        lambda: library.migrate(path, "repository"), lambda: library.run(path), lambda: library.compare(path, path), lambda: library.smoke(path),
        lambda: library.export_onnx(path, "q.onnx"), lambda: library.quantize(path, "q.onnx"), lambda: library.quantize("m.onnx", path),
        lambda: library.package_triton(path, "repository"), lambda: library.package_triton("m.onnx", path), lambda: library.doctor([path]),
    ]  # fmt: skip
    for call in calls:
        with within(60), pytest.raises(library.OptkitError):
            call()
