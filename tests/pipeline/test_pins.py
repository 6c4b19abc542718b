"""`run.lock`, and what `--locked` says of everything that is another one."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import optkit
from optkit import deps
from optkit.artifact import environment
from optkit.pipeline.pins import RunLock
from tests.support.project import (
    DYNAMIC,
    ONNX,
    CommandLine,
    Result,
    command_line,
    edit,
    forget_modules,
    write_project,
)
from tests.support.seal import sealed

DATA = {"calibration": "data.py:feeds", "evaluation": "judge.py:evaluate"}
KEYS = {"steps": [ONNX, DYNAMIC], "data": DATA, "gates": {"batch_independence": False}}
FEEDS = """
import pathlib
import numpy as np

def feeds():
    scale = float((pathlib.Path(__file__).parent / "scale.txt").read_text())
    return [{'x': np.float32(scale) * np.eye(4, dtype=np.float32)}]
"""


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[CommandLine]:
    yield from command_line(monkeypatch, capsys)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("locked") / "project"
    recipe = write_project(folder, **KEYS)
    (folder / "data.py").write_text(FEEDS)
    (folder / "scale.txt").write_text("1")
    (folder / "judge.py").write_text("def evaluate(predict):\n    return 1.0\n")
    optkit.run(recipe, folder / "out")
    return folder


@pytest.fixture
def project(ran: Path, tmp_path: Path) -> Path:
    shutil.copytree(ran, tmp_path / "project")
    return tmp_path / "project"


def run(cli: CommandLine, folder: Path, *options: str) -> Result:
    forget_modules()
    return cli("run", folder / "recipe.yaml", "-o", folder / "out", "--locked", *options)


def test_an_unchanged_project_is_run_where_it_lies_and_elsewhere(project: Path, cli: CommandLine) -> None:
    lock = (project / "out" / "run.lock").read_bytes()
    assert run(cli, project).code == 0
    shutil.rmtree(project / "out")
    (project / "recipe.lock").write_bytes(lock)
    done = run(cli, project)
    assert done.code == 0, done.err
    assert (project / "recipe.lock").read_bytes() == lock
    assert not (project / "out" / "run.lock").exists()


DRIFTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "code": (lambda f: edit(f / "model.py", "2.0", "3.0"), "input model: "),
    "data": (lambda f: edit(f / "data.py", "eye(4", "ones((4, 4)"), "input calibration: "),
    "a file that the data function reads": (lambda f: (f / "scale.txt").write_text("2"), "file scale.txt, which your code reads"),
    "judge": (lambda f: edit(f / "judge.py", "1.0", "2.0"), "input evaluation: "),
    "dims": (lambda f: write_project(f, **KEYS, dims={"batch": "1:4:16"}), "recipe dims: "),
    "steps": (lambda f: write_project(f, **KEYS | {"steps": [ONNX]}), "recipe steps: "),
}  # fmt: skip


@pytest.mark.parametrize("what", DRIFTS)
def test_a_drift_is_named_before_any_work(project: Path, cli: CommandLine, what: str) -> None:
    change, message = DRIFTS[what]
    change(project)
    before = (project / "out" / "run.json").read_bytes()
    done = run(cli, project)
    assert done.code == 2
    assert f"--locked: {message}" in done.err
    assert (project / "out" / "run.json").read_bytes() == before


def test_versions_and_the_processor_are_pinned(
    project: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = deps.version
    monkeypatch.setattr(deps, "version", lambda *names: "99.0" if "onnxruntime" in names else installed(*names))
    monkeypatch.setattr(environment, "processor", lambda: "x86_64 avx2")
    done = run(cli, project)
    assert done.code == 2
    assert "--locked: version onnxruntime: " in done.err
    assert "in run.lock, 99.0 now" in done.err
    assert "--locked: hardware processor: " in done.err


def test_another_artifact_of_the_same_inputs_is_a_negative_verdict(project: Path, cli: CommandLine) -> None:
    path = project / "out" / "run.lock"
    lock = json.loads(path.read_text())
    lock["artifacts"]["export-onnx"] = "0" * 64
    path.write_text(json.dumps(sealed(lock)))
    done = run(cli, project)
    assert done.code == 1
    assert "failed: --locked: export-onnx: SHA-256" in done.err


def test_a_lock_that_is_missing_or_edited_is_refused(project: Path, cli: CommandLine) -> None:
    path = project / "out" / "run.lock"
    edit(path, '"model": 0', '"model": 1')
    done = run(cli, project)
    assert (done.code, "was changed after optkit wrote it" in done.err) == (2, True)
    path.unlink()
    done = run(cli, project)
    assert done.code == 2
    assert "Run once without --locked, and keep its run.lock." in done.err


def test_the_lock_holds_no_path_of_this_machine(ran: Path) -> None:
    assert str(ran) not in (ran / "out" / "run.lock").read_text()
    assert RunLock.read(ran / "out" / "run.lock").seeds["model"] == 0
