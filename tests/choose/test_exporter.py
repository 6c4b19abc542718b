import re
from pathlib import Path
from typing import Any

import pytest
import torch

from optkit import onnx_file
from optkit.artifact import Artifact
from optkit.checks import Prover, Requirements
from optkit.choose.stage import run_stage
from optkit.data import Samples
from optkit.errors import StageError
from optkit.stages import ExportOnnx, ExportTorchScript, Stage, export_onnx
from tests.support import zoo
from tests.support.zoo import Make


def run(stage: Stage, source: Artifact, out_dir: Path, filename: str | None = None) -> Artifact:
    prover = Prover(source, Samples(source.inputs, source.dims), Requirements())
    return run_stage(stage, source, out_dir, prover, filename)


def writes_18(module: Any, feed: Any, path: Path, inputs: Any, outputs: Any, opset: int) -> None:
    export_onnx._torchscript(module, feed, path, inputs, outputs, 18)


def raises(*args: Any) -> None:
    raise ValueError("Cannot view a tensor\nwith these strides")


def test_auto_takes_dynamo_first(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_onnx, "_torchscript", raises)
    artifact = run(ExportOnnx(), make("linear"), tmp_path / "out")
    assert artifact.notes[0].startswith("exported by the dynamo exporter, opset 20, IR ")
    assert not any("not chosen" in note for note in artifact.notes)


def test_auto_falls_back_to_the_torchscript_exporter_and_says_why(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_onnx, "_dynamo", writes_18)
    artifact = run(ExportOnnx(opset=17), make("linear"), tmp_path / "out", "mine.onnx")
    assert artifact.notes[0].startswith("exported by the torchscript exporter, opset 17, ")
    assert artifact.notes[-1] == (
        "not chosen: the dynamo exporter wrote opset 18; expected 17. Use --opset 18, or --exporter torchscript."
    )
    assert onnx_file.facts(artifact.path).opset == 17
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.onnx"]


def test_what_dynamo_and_a_trace_lose_is_kept_by_scripting(tmp_path: Path) -> None:
    artifact = run(ExportOnnx(opset=18), zoo.bad("loses_batch").source(tmp_path), tmp_path / "out")
    assert artifact.notes[0].startswith("exported by the script exporter")
    first, second = artifact.notes[1:]
    assert "not chosen: the dynamo exporter failed: " in first
    assert "input 'x' lost its dynamic dimension 'batch'" in first
    assert "not chosen: the file of the torchscript exporter has no parity: output " in second
    assert "the trace baked in a value: Converting a tensor to a Python integer" in second


def wrong_by_one(*args: Any) -> None:
    """Export another model than the requested one, as a silent bug of an exporter would."""

    class Off(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = args[0]

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return self.inner(input) + 1

    export_onnx._torchscript(Off(), *args[1:])


def test_a_wrong_file_is_not_chosen(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_onnx, "_dynamo", wrong_by_one)
    artifact = run(ExportOnnx(opset=17), make("linear"), tmp_path / "out")
    assert artifact.notes[0].startswith("exported by the torchscript exporter")
    assert "not chosen: the file of the dynamo exporter has no parity: output 'output' at batch=" in artifact.notes[-1]


def test_best_measures_both_and_says_by_how_much(make: Make, tmp_path: Path) -> None:
    artifact = run(ExportOnnx(exporter="best", opset=18), make("conv"), tmp_path / "out")
    assert artifact.path == tmp_path / "out" / "model.onnx"
    assert re.search(
        r"the torchscript exporter's file runs \d+\.\d\dx \(.*\) as fast as the dynamo exporter's", artifact.notes[1]
    )
    ratio = float(re.search(r"runs (\d+\.\d\d)x", artifact.notes[1])[1])
    faster = "torchscript" if ratio > 1 else "dynamo"
    assert ratio == 1 or artifact.notes[0].startswith(f"exported by the {faster} exporter")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.onnx"]


def test_every_reason_is_told_when_all_are_refused(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_onnx, "_dynamo", raises)
    monkeypatch.setattr(export_onnx, "_torchscript", raises)
    monkeypatch.setattr(export_onnx, "_script", raises)
    with pytest.raises(StageError) as caught:
        run(ExportOnnx(name="mine", opset=17), make("linear"), tmp_path / "out")
    head, first, second, third = str(caught.value).splitlines()
    assert head == "mine: no exporter could export the model."
    assert first.startswith("  - the dynamo exporter failed: ")
    assert second.startswith("  - the torchscript exporter failed: ")
    assert third.startswith("  - the script exporter failed: ")
    assert "ValueError: Cannot view a tensor" in first
    assert "ValueError: Cannot view a tensor" in second
    assert not list((tmp_path / "out").rglob("*.onnx"))


def test_a_named_exporter_is_the_only_one(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_onnx, "_dynamo", writes_18)
    with pytest.raises(StageError, match="the dynamo exporter wrote opset 18; expected 17"):
        run(ExportOnnx(opset=17, exporter="dynamo"), make("linear"), tmp_path / "out")


def test_a_stage_without_a_choice_is_run_as_it_is(make: Make, tmp_path: Path) -> None:
    artifact = run(ExportTorchScript(), make("linear"), tmp_path)
    assert artifact.path == tmp_path / "model.pt"
