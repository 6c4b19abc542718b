"""The script that repeats an export is run, without optkit on its path."""

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from optkit.api.repro import write_repro
from optkit.artifact import Artifact
from optkit.errors import OutputError
from optkit.pytorch.source import make_source
from optkit.stages import ExportOnnx, ExportProgram, ExportTorchScript
from optkit.untrusted.names import name_text_fault
from tests.support import zoo
from tests.support.hostile_texts import CANARY, EVERY, QUOTED, shown
from tests.support.zoo import Make

CODE = """
    import torch
    from neighbour import SCALE
    class Branch(torch.nn.Module):
        def __init__(self, shift):
            super().__init__()
            self.shift = torch.nn.Parameter(torch.tensor(float(shift)))
        def forward(self, x, *, mask):
            y = x * mask * SCALE + self.shift
            return {"a": y if y.sum() > 0 else -y, "b": y}
    def build(shift): return Branch(shift)
"""


def run(script: Path) -> list[str]:
    blocked = "import sys; sys.modules['optkit'] = None; import runpy; runpy.run_path('repro.py')"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", blocked], cwd=script.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if ".npz output" in line]


def test_it_shows_the_wrong_branch_with_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(textwrap.dedent(CODE))
    (tmp_path / "neighbour.py").write_text("SCALE = 2.0\n")
    torch.save({"shift": torch.tensor(0.25)}, tmp_path / "w.pt")
    source = make_source(
        f"{tmp_path / 'model.py'}:build",
        tmp_path / "source",
        zoo.specs("x:float32[batch,4]", "mask:float32[batch,1]"),
        zoo.BATCH,
        args={"shift": 3},
        weights=tmp_path / "w.pt",
    )
    script = write_repro(source, ExportOnnx(exporter="torchscript", opset=17), tmp_path / "repro")
    assert {p.name for p in script.parent.iterdir()} >= {"model.py", "neighbour.py", "w.pt", "repro.py", "example.npz"}
    shown = run(script)
    assert len(shown) == 10  # two outputs for the example and four corners
    differs = [not line.endswith("max abs 0.0") for line in shown if "output 0" in line]
    assert any(differs)
    assert not all(differs)  # the branch is right where the example went the same way
    assert all(float(line.split()[-1]) < 1e-5 for line in shown if "output 1" in line)


STAGES = [ExportTorchScript(), ExportTorchScript(method="trace"), ExportOnnx(exporter="dynamo", opset=18)]


@pytest.mark.parametrize("stage", STAGES, ids=["script", "trace", "dynamo"])
def test_it_repeats_a_good_export(stage: ExportOnnx | ExportTorchScript, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "import torch\ndef build(): return torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU())\n"
    )
    source = make_source(
        f"{tmp_path / 'model.py'}:build", tmp_path / "source", zoo.specs("x:float32[batch,4]"), zoo.BATCH
    )
    shown = run(write_repro(source, stage, tmp_path / "repro"))
    assert len(shown) == 5
    assert all(float(line.split()[-1]) < 1e-5 for line in shown)


def test_it_takes_a_model_file_along(make: Make, tmp_path: Path) -> None:
    program = make("linear", ExportProgram())
    source = make_source(str(program.path), tmp_path / "source")
    assert len(run(write_repro(source, ExportOnnx(opset=18), tmp_path / "repro"))) == 5


def test_a_folder_in_use_is_refused(make: Make, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="is not empty; expected a new or empty folder"):
        write_repro(make("linear"), ExportOnnx(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("exporter", ["torchscript", "script"])
def test_it_repeats_what_returns_a_type_of_its_own_and_what_is_scripted(exporter: str, tmp_path: Path) -> None:
    returned = "Estimate(x * scale, x)" if exporter == "torchscript" else "(x * scale, x)"
    (tmp_path / "model.py").write_text(
        "import dataclasses\nimport torch\n@dataclasses.dataclass\nclass Estimate:\n    mean: torch.Tensor\n"
        "    spread: torch.Tensor\nclass Model(torch.nn.Module):\n    def forward(self, x, scale):\n"
        f"        return {returned}\n"
    )
    inputs = zoo.specs("x:float32[batch,4]", "scale:float32[batch,1]")
    source = make_source(f"{tmp_path / 'model.py'}:Model", tmp_path / "source", inputs, zoo.BATCH)
    shown = run(write_repro(source, ExportOnnx(exporter=exporter, opset=17), tmp_path / "repro"))
    assert len(shown) == 10
    assert all(line.endswith("max abs 0.0") for line in shown)


ESTIMATE = (
    "import dataclasses\nimport torch\n@dataclasses.dataclass\nclass Estimate:\n    mean: torch.Tensor\nclass Model(torch.nn.Module):\n"
    "    def __init__(self, **options):\n        super().__init__()\n"
    "    def forward(self, *tensors):\n        return Estimate(tensors[0] * 2)\n"
)


def odd_source(folder: Path, text: str) -> Artifact:
    """Return a source with this text as the name of an input, of a dimension, of an output and of an argument of its factory."""
    (folder / "model.py").write_text(ESTIMATE)
    spec = zoo.specs("x:float32[batch,4]")[0].model_copy(update={"name": text, "shape": (text, 4)})
    ranges = {text: zoo.BATCH["batch"]}
    source = make_source(
        f"{folder / 'model.py'}:Model",
        folder / "source",
        [spec],
        ranges,
        args={text: text} if text != "self" else {},
        outputs=(f"{text} out",),
    )
    assert source.outputs[0].name == f"{text} out"
    return source


def outline(script: Path) -> list[str]:
    """Return the statements of a script by their kinds, and what it calls."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [*(type(node).__name__ for node in tree.body), *sorted(calls)]


def test_a_script_does_the_same_whatever_the_names_in_it_are(tmp_path: Path) -> None:
    """It is made to be sent to somebody else."""
    found = {}
    for i, text in enumerate(("plain", *(text for text in EVERY if name_text_fault(text) is None))):
        folder = tmp_path / str(i)
        folder.mkdir()
        source = odd_source(folder, text)
        for exporter in ("torchscript", "dynamo"):
            script = write_repro(source, ExportOnnx(exporter=exporter, opset=18), folder / exporter)
            compile(script.read_text(encoding="utf-8"), str(script), "exec")
            found[text, exporter] = outline(script)
    assert len(found) > 100
    for (text, exporter), lines in found.items():
        assert lines == found["plain", exporter], text
    assert not list(tmp_path.rglob(f"*{CANARY}*"))


@pytest.mark.parametrize("text", ["file", "allow_pickle", "__debug__", "input.1", QUOTED[1], QUOTED[5]], ids=shown)
def test_a_script_with_odd_names_runs(tmp_path: Path, text: str) -> None:
    script = write_repro(odd_source(tmp_path, text), ExportOnnx(exporter="torchscript", opset=18), tmp_path / "repro")
    found = run(script)
    assert len(found) == 5
    assert all(line.endswith("max abs 0.0") for line in found)
    assert not list(tmp_path.rglob(f"*{CANARY}*"))


def test_a_script_imports_a_file_whose_name_is_none_of_python(tmp_path: Path) -> None:
    file = tmp_path / f"my-model; open('{CANARY}', 'w').py"
    file.write_text("import torch\ndef build(): return torch.nn.Linear(4, 2)\n")
    source = make_source(f"{file}:build", tmp_path / "source", zoo.specs("input:float32[batch,4]"), zoo.BATCH)
    script = write_repro(source, ExportTorchScript(), tmp_path / "repro")
    assert len(run(script)) == 5
    assert not list(tmp_path.rglob(CANARY))
