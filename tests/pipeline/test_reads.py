"""What the user's code reads by itself: a change of any of it makes again what was made of it, and nothing else does."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from optkit.artifact import Passport
from tests.support.project import ONNX, STATIC, carry_out, edit, forget_modules, statuses, write_project

# Each of these is read in another way; none is seen in the text of model.py.
MODEL = """\
import importlib, importlib.util, json, os, pathlib, sys
import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
AT_IMPORT = json.loads((HERE / "at_import.json").read_text())
sys.path.append(str(HERE / "elsewhere"))
from far import FAR


class Model(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)
        self.factor = factor

    def forward(self, x):
        return self.factor * self.linear(x)


def build():
    near = importlib.import_module("ne" + "ar").NEAR
    package = importlib.import_module("pack" + "age.inner").INNER
    spec = importlib.util.spec_from_file_location("by_path", HERE / "by_path.py.txt".removesuffix(".txt"))
    by_path = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(by_path)
    names = {}
    with open(HERE / "executed.py") as stream:
        exec(stream.read(), names)
    from safetensors.torch import load_file
    files = sum(1 for _ in (HERE / "counted").glob("*.txt"))
    factor = sum([
        AT_IMPORT, FAR, near, package, by_path.BY_PATH, names["EXECUTED"], files, float(os.environ.get("FACTOR", "1")),
        float(np.load(HERE / "factor.npy")), float(torch.load(HERE / "factor.pt")["f"]),
        float(load_file(HERE / "factor.safetensors")["f"]), float((HERE / "maybe.txt").exists() and 0),
    ])
    try:
        factor += float((HERE / "optional.txt").read_text())
    except FileNotFoundError:
        pass
    return Model(factor)
"""
DATA = """\
import os, pathlib
import numpy as np
import torch

HERE = pathlib.Path(__file__).parent


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return np.load(HERE / "row.npy")


def calibration():
    scale = np.load(HERE / "scale.npy") * float(os.environ.get("SCALE", "1"))
    loader = torch.utils.data.DataLoader(Rows(), batch_size=2, num_workers=1)
    for rows in loader:
        yield {"x": (scale * rows.numpy()).astype(np.float32)}


def evaluate(predict):
    return float((HERE / "value.txt").read_text())
"""
STEPS = [ONNX, STATIC]
DATA_KEYS = {"calibration": "data.py:calibration", "evaluation": "data.py:evaluate"}
NAMES = {"source", "export-onnx", "quantize-static"}


def write_files(folder: Path) -> None:
    """Write everything that the code above reads."""
    for name in ("elsewhere", "package", "counted"):
        (folder / name).mkdir(parents=True)
    (folder / "model.py").write_text(MODEL)
    (folder / "data.py").write_text(DATA)
    (folder / "at_import.json").write_text("1")
    (folder / "elsewhere" / "far.py").write_text("FAR = 1\n")
    (folder / "near.py").write_text("NEAR = 1\n")
    (folder / "package" / "__init__.py").write_text("")
    (folder / "package" / "inner.py").write_text("from package.deeper import INNER\n")
    (folder / "package" / "deeper.py").write_text("INNER = 1\n")
    (folder / "by_path.py").write_text("BY_PATH = 1\n")
    (folder / "executed.py").write_text("EXECUTED = 1\n")
    (folder / "counted" / "a.txt").write_text("a")
    (folder / "value.txt").write_text("1.0")
    np.save(folder / "factor.npy", np.float32(1))
    np.save(folder / "scale.npy", np.float32(1))
    np.save(folder / "row.npy", np.linspace(-1, 1, 4, dtype=np.float32))
    torch.save({"f": torch.tensor(1.0)}, folder / "factor.pt")
    save_file({"f": torch.tensor(1.0)}, folder / "factor.safetensors")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project that was run once, in a process of its own."""
    folder = tmp_path_factory.mktemp("ran") / "project"
    write_files(folder)
    recipe = write_project(folder, steps=STEPS, data=DATA_KEYS)
    command = [sys.executable, "-c", f"import optkit; optkit.run({str(recipe)!r}, {str(folder / 'out')!r})"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def project(ran: Path, tmp_path: Path) -> Path:
    shutil.copytree(ran, tmp_path / "project")
    return tmp_path / "project"


def rebuilt(folder: Path) -> set[str]:
    return {name for name, status in statuses(carry_out(folder / "recipe.yaml")).items() if status == "built"}


def same_size_and_time(path: Path, write: Callable[[], None]) -> None:
    """Change a file so that its size and its time stay as they were."""
    before = path.stat()
    content = path.read_bytes()
    write()
    assert path.read_bytes() != content
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def other_weights(folder: Path) -> None:
    same_size_and_time(folder / "factor.pt", lambda: torch.save({"f": torch.tensor(2.0)}, folder / "factor.pt"))


CHANGES: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "read at import": (lambda f: (f / "at_import.json").write_text("2"), NAMES),
    "imported from another entry of sys.path": (lambda f: edit(f / "elsewhere" / "far.py", "1", "2"), NAMES),
    "imported by importlib": (lambda f: edit(f / "near.py", "1", "2"), NAMES),
    "deep in a package": (lambda f: edit(f / "package" / "deeper.py", "1", "2"), NAMES),
    "loaded by its path": (lambda f: edit(f / "by_path.py", "1", "2"), NAMES),
    "executed": (lambda f: edit(f / "executed.py", "1", "2"), NAMES),
    "read by numpy": (lambda f: np.save(f / "factor.npy", np.float32(2)), NAMES),
    "read by torch, of the same size and time": (other_weights, NAMES),
    "read by a library in C": (
        lambda f: save_file({"f": torch.tensor(2.0)}, f / "factor.safetensors"),
        NAMES,
    ),
    "one file more in a folder": (lambda f: (f / "counted" / "b.txt").write_text("b"), NAMES),
    "a file that was missing": (lambda f: (f / "optional.txt").write_text("1"), NAMES),
    "read by the data function": (lambda f: np.save(f / "scale.npy", np.float32(2)), {"quantize-static"}),
    "read in a worker of a DataLoader": (
        lambda f: np.save(f / "row.npy", np.linspace(-3, 1, 4, dtype=np.float32)),
        {"quantize-static"},
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_the_code_reads_is_watched(project: Path, what: str) -> None:
    change, wanted = CHANGES[what]
    change(project)
    assert rebuilt(project) == wanted
    forget_modules()
    assert rebuilt(project) == set()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda f: None, id="nothing"),
        pytest.param(lambda f: (f / "notes.txt").write_text("a"), id="another file beside the code"),
        pytest.param(lambda f: os.utime(f / "factor.npy"), id="a new time of the same content"),
        pytest.param(lambda f: (f / "counted" / ".hidden").write_text("a"), id="a hidden file in a folder"),
    ],
)
def test_what_the_code_does_not_read_does_not_matter(
    project: Path, change: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(project)
    monkeypatch.setenv("ANOTHER", "1")
    assert rebuilt(project) == set()


@pytest.mark.parametrize(("name", "wanted"), [("FACTOR", NAMES), ("SCALE", {"quantize-static"})])
def test_environment_variables_that_the_code_reads_are_watched(
    project: Path, name: str, wanted: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "2")
    assert rebuilt(project) == wanted
    monkeypatch.delenv(name)
    assert rebuilt(project) == wanted


def test_a_value_of_a_variable_is_not_in_the_record(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTOR", "12345678.5")
    rebuilt(project)
    assert all("12345678.5" not in path.read_text() for path in project.rglob("out/**/*.json"))


def test_what_the_evaluation_reads_is_proven_again(project: Path) -> None:
    (project / "value.txt").write_text("0.5")
    record = carry_out(project / "recipe.yaml")
    # The functions of one folder may share a cache, so what one of them read counts for those that ran after it.
    assert {name for name, status in statuses(record).items() if status == "built"} == {"quantize-static"}
    assert {step.accuracy.value for step in (record.source, *record.steps) if step.accuracy} == {0.5}


def test_the_data_of_a_benchmark_is_watched(project: Path) -> None:
    np.save(project / "scale.npy", np.float32(2))
    assert not carry_out(project / "recipe.yaml").bench_reused


def test_the_record_names_what_was_read(ran: Path) -> None:
    source = Passport.read(ran / "out" / "source" / "model.source.json.passport.json")
    made, static = source.reads[0], Passport.read(ran / "out" / "quantize-static" / "model.onnx.passport.json").reads[0]
    assert {"file factor.npy", "file factor.pt", "file factor.safetensors", "file optional.txt"} <= set(made)
    assert {"file elsewhere/far.py", "file package/deeper.py", "folder counted", "variable FACTOR"} <= set(made)
    assert {"package torch", "package numpy"} <= set(made)
    assert {"file scale.npy", "file row.npy", "variable SCALE"} <= set(static)
    assert not [name for name in made if "out/" in name or "/proc" in name or "site-packages" in name]


def test_a_file_of_another_version_of_a_package_that_the_code_imports_is_made_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optkit import deps

    edit(project / "model.py", "import torch\n", "import torch\nimport pluggy\n")
    assert rebuilt(project) == NAMES
    forget_modules()
    installed = deps.version
    monkeypatch.setattr(deps, "version", lambda *names: "99.0" if "pluggy" in names else installed(*names))
    assert rebuilt(project) == NAMES


def test_weights_of_the_recipe_of_equal_size_and_time(tmp_path: Path) -> None:
    recipe = write_project(tmp_path, steps=[ONNX], model={"source": "model.py:build", "weights": "w.pt"})
    torch.save({"linear.weight": torch.zeros(3, 4), "linear.bias": torch.zeros(3)}, tmp_path / "w.pt")
    carry_out(recipe)
    other = {"linear.weight": torch.ones(3, 4), "linear.bias": torch.zeros(3)}
    same_size_and_time(tmp_path / "w.pt", lambda: torch.save(other, tmp_path / "w.pt"))
    assert rebuilt(tmp_path) == {"source", "export-onnx"}
