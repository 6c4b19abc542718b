"""What lies beside the user's model, and how its import may end, seen from the command line in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from optkit.artifact.tensors import DimRange
from optkit.data import Samples
from optkit.serving import TritonPythonServing, package_function
from tests.support.project import CommandLine, command_line

INPUTS = ("--input", "x:float32[batch,4]", "--dim", "batch=1:4:8")
NET = """
import random, types
import torch
import utils
from pack.layers import Layer

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = Layer(4, utils.SIZE)

    def forward(self, x):
        import lazily
        return self.layer(x) * lazily.FACTOR * random.FACTOR * types.FACTOR
"""
OWN = " * random.FACTOR * types.FACTOR"
FILES = {
    "model.py": NET,
    "utils.py": "SIZE = 3\n",
    "lazily.py": "FACTOR = 2.0\n",
    "random.py": "FACTOR = 3.0\n",
    "types.py": "FACTOR = 4.0\n",
    "pack/__init__.py": "",
    "pack/layers.py": "import torch\nclass Layer(torch.nn.Linear): ...\n",
    "triton/net/config.pbtxt": "",
    "onnx/old.onnx": "",
    "onnxruntime/__init__.py": "raise RuntimeError('not mine')\n",
    "tokenizers/__init__.py": "raise RuntimeError('not mine')\n",
    "datasets/__init__.py": "raise RuntimeError('not mine')\n",
    "numpy.py": "raise RuntimeError('not mine')\n",
}


@pytest.fixture
def optkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    yield from command_line(monkeypatch, capsys)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, body in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(body)
    return tmp_path


SCRIPT = (
    "-P",
    "-c",
    "from optkit.cli import main; main()",
)  # as pip's console script: the current folder is not on the path
MODULE = ("-m", "optkit")


def run(python: tuple[str, ...], cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *python, *arguments]
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("python", [SCRIPT, MODULE])
@pytest.mark.parametrize("exporter", ["dynamo", "auto"])
def test_nothing_beside_a_model_stands_in_for_a_library(folder: Path, exporter: str, python: tuple[str, ...]) -> None:
    """A process of its own: each library is imported after the model."""
    if python == MODULE:  # Python itself would not start with these
        for name in ("random.py", "types.py"):
            (folder / name).unlink()
        (folder / "model.py").write_text(NET.replace("import random, types", "").replace(OWN, ""))
    done = run(python, folder, "export", "onnx", "model.py:Net", *INPUTS, "-o", "m.onnx", "--exporter", exporter)
    assert done.returncode == 0, done.stderr
    assert "not chosen" not in done.stdout + done.stderr
    graph = onnx.load(folder / "m.onnx").graph
    assert any(entry.key.startswith("pkg.torch") for node in graph.node for entry in node.metadata_props)  # dynamo's
    assert not list(folder.rglob("__pycache__"))


def test_the_home_folder_is_written_short(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    arguments = ("export", "torchscript", "~/model.py:Net", *INPUTS, "-o", "m.pt")
    done = run(SCRIPT, elsewhere, *arguments, HOME=str(folder), USERPROFILE=str(folder))
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "m.pt").is_file()


STOPS = """
class Stops:
    def __set_name__(self, owner, name):
        raise KeyboardInterrupt

class Net:
    part = Stops()
"""


@pytest.mark.parametrize(
    "body",
    [
        STOPS,
        "def Net():\n    import stops\n",
        "raise KeyboardInterrupt\n",
        "def Net():\n    raise KeyboardInterrupt\n",
    ],
)
def test_ctrl_c_ends_with_130(optkit: CommandLine, tmp_path: Path, body: str) -> None:
    (tmp_path / "stops.py").write_text(STOPS)
    (tmp_path / "m.py").write_text(body)
    found = optkit("export", "onnx", f"{tmp_path / 'm.py'}:Net", *INPUTS, "-o", tmp_path / "m.onnx")
    assert found.code == 130
    assert "optkit:" not in found.err


def test_ctrl_c_while_forward_imports_ends_every_attempt(optkit: CommandLine, tmp_path: Path) -> None:
    """A choice of exporters goes on after one that failed, and torch raises an error of its own around the cause."""
    (tmp_path / "stops.py").write_text(STOPS)
    body = """
import torch
class Net(torch.nn.Module):
    def forward(self, x):
        if torch.compiler.is_exporting() or torch.compiler.is_compiling():
            import stops
        return x
"""
    (tmp_path / "m.py").write_text(body)
    found = optkit("export", "onnx", f"{tmp_path / 'm.py'}:Net", *INPUTS, "-o", tmp_path / "m.onnx")
    assert found.code == 130
    assert not (tmp_path / "m.onnx").exists()


def test_a_script_that_parses_arguments_is_refused_with_what_to_do(optkit: CommandLine, tmp_path: Path) -> None:
    body = "import argparse\nparser = argparse.ArgumentParser()\nparser.parse_args()\nclass Net: ...\n"
    (tmp_path / "m.py").write_text(body)
    found = optkit("export", "onnx", f"{tmp_path / 'm.py'}:Net", *INPUTS, "-o", tmp_path / "m.onnx")
    assert found.code == 2
    assert f"m.py: import failed: {tmp_path / 'm.py'}:3: SystemExit: 2. " in found.err
    assert 'Move the code of the script below `if __name__ == "__main__":`.' in found.err
    assert not (tmp_path / "m.onnx").exists()


def test_a_file_of_a_package_is_exported(optkit: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").touch()
    (tmp_path / "pkg" / "layers.py").write_text(FILES["pack/layers.py"])
    (tmp_path / "pkg" / "net.py").write_text("from .layers import Layer\ndef build():\n    return Layer(4, 2)\n")
    target = f"{tmp_path / 'pkg' / 'net.py'}:build"
    found = optkit(
        "export",
        "torchscript",
        target,
        "--input",
        "input:float32[batch,4]",
        "--dim",
        "batch=1:4:8",
        "-o",
        tmp_path / "m.pt",
        "--repro",
        tmp_path / "again",
    )
    assert found.code == 0, found.err
    again = subprocess.run(
        [sys.executable, "repro.py"], cwd=tmp_path / "again", capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr


def test_a_function_of_a_package_is_carried_as_one(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").touch()
    (tmp_path / "pkg" / "scale.py").write_text("SCALE = 2\n")
    (tmp_path / "pkg" / "net.py").write_text(
        "from .scale import SCALE\ndef double(feed):\n    return {'y': feed['x'] * SCALE}\n"
    )
    dims = {"batch": DimRange(min=1, opt=2, max=4)}
    settings = TritonPythonServing(
        function=f"{tmp_path / 'pkg' / 'net.py'}:double",
        inputs={"x": "float32[batch,2]"},
        outputs={"y": "float32[batch,2]"},
    )
    packaged = package_function(settings, tmp_path / "models", dims, Samples(settings.inputs, dims), force=False)
    names = {str(path.relative_to(packaged.path / "1")) for path in (packaged.path / "1").rglob("*.py")}
    assert names == {"model.py", *(f"code/pkg/{name}.py" for name in ("__init__", "net", "scale"))}
