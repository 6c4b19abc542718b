import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from optkit.artifact import Artifact
from optkit.errors import StageError
from optkit.hashing import sha256_of
from optkit.pytorch.source import make_source
from optkit.runners import open_runner
from optkit.stages import ExportTorchScript
from tests.support import zoo

UNSCRIPTABLE = """
import torch

class Model(torch.nn.Module):
    def forward(self, x):
        return x * len({n for n in (1, 2)})

def build():
    return Model()
"""


@pytest.fixture
def unscriptable(tmp_path: Path) -> Artifact:
    (tmp_path / "m.py").write_text(UNSCRIPTABLE)
    sample = zoo.bad("")
    return make_source(f"{tmp_path / 'm.py'}:build", tmp_path, sample.inputs, sample.dims)


def positive(artifact: Artifact) -> tuple[np.ndarray, np.ndarray]:
    """Return what the model answers for ones and for minus ones."""
    ones = np.ones((2, 4), np.float32)
    with open_runner(artifact) as runner:
        return runner.infer({"x": ones})["output"], runner.infer({"x": -ones})["output"]


def test_scripting_keeps_control_flow(tmp_path: Path) -> None:
    artifact = ExportTorchScript().run(zoo.bad("branches").source(tmp_path), tmp_path)
    assert artifact.notes == ("scripted: keeps control flow",)
    above, below = positive(artifact)
    assert (above == 2).all()
    assert (below == 1).all()


def test_tracing_loses_it_and_notes_the_line(tmp_path: Path) -> None:
    artifact = ExportTorchScript(method="trace").run(zoo.bad("branches").source(tmp_path), tmp_path)
    assert artifact.notes[0] == "traced (--method trace): records one run"
    assert artifact.notes[1].startswith(f"{zoo.HERE}:")
    above, below = positive(artifact)
    assert (above[0] / below[0] == -1).all()  # one branch for both


def test_auto_traces_what_cannot_be_scripted_and_says_why(unscriptable: Artifact, tmp_path: Path) -> None:
    artifact = ExportTorchScript().run(unscriptable, tmp_path / "out")
    assert artifact.notes[0].startswith("traced, because scripting failed: ")
    assert "m.py:6)" in artifact.notes[0]
    assert (positive(artifact)[0] == 2).all()


def test_script_alone_refuses_it(unscriptable: Artifact, tmp_path: Path) -> None:
    with pytest.raises(
        StageError, match=r"^export-torchscript: the model cannot be scripted: .* Try --method trace\.$"
    ):
        ExportTorchScript(method="script").run(unscriptable, tmp_path / "out")


def test_a_trace_that_raises_names_the_line(tmp_path: Path) -> None:
    code = """
        import torch
        from torch import nn
        class Shy(nn.Module):
            def forward(self, x):
                if torch.jit.is_tracing():
                    raise ValueError("not while I am watched")
                return x
    """
    (tmp_path / "shy.py").write_text(textwrap.dedent(code))
    source = make_source(f"{tmp_path / 'shy.py'}:Shy", tmp_path, zoo.specs("x:float32[batch,4]"), zoo.BATCH)
    with pytest.raises(StageError, match=r"the model cannot be traced: .*shy.py:7: ValueError: not while I am watched"):
        ExportTorchScript(method="trace").run(source, tmp_path / "out")


def test_the_same_model_gives_the_same_file_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        "from torch import nn\n"
        "def build(): return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(4))\n"
    )
    digests = set()
    for seed in ("1", "2", "3"):
        folder = tmp_path / seed
        subprocess.run(
            [
                sys.executable, "-m", "optkit", "export", "torchscript", str(tmp_path / "m.py:build"), "-o", str(folder / "m.pt"),
                "--input", "x:float32[batch,1,4,4]", "--dim", "batch=1:2:4",
            ],
            env=os.environ | {"PYTHONHASHSEED": seed}, check=True, capture_output=True,
        )  # fmt: skip
        digests.add(sha256_of(folder / "m.pt"))
    assert len(digests) == 1


def test_a_function_whose_source_cannot_be_read_is_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(module):
        raise OSError("Failed to get source for <function f> using inspect.getsource")  # as torch says it

    monkeypatch.setattr("torch.jit.script", refuse)
    source = make_source(f"{zoo.HERE}:identity", tmp_path, zoo.specs("x:float32[batch,4]"), zoo.BATCH)
    artifact = ExportTorchScript().run(source, tmp_path / "out")
    assert artifact.notes[0].startswith("traced, because scripting failed: Failed to get source for <function f>")
