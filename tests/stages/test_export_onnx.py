import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from optkit import onnx_file
from optkit.artifact.tensors import Feed, TensorSpec
from optkit.checks import Prover, Requirements
from optkit.data import Samples
from optkit.errors import StageError
from optkit.pytorch.source import make_source
from optkit.stages import ExportOnnx, export_onnx
from tests.support import zoo
from tests.support.zoo import Make

TORCHSCRIPT = ExportOnnx(exporter="torchscript", opset=17)
DYNAMO = ExportOnnx(exporter="dynamo")


def test_auto_is_a_choice_made_elsewhere(make: Make, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"^export-onnx: exporter 'auto' is a choice, not an exporter"):
        ExportOnnx().run(make("linear"), tmp_path)


def test_what_cannot_be_scripted_is_told_with_its_line(tmp_path: Path) -> None:
    code = """
        import torch
        class Star(torch.nn.Module):
            def forward(self, x):
                return torch.cat([*x.unbind(0)])
    """
    (tmp_path / "m.py").write_text(textwrap.dedent(code))
    source = make_source(f"{tmp_path / 'm.py'}:Star", tmp_path / "s", zoo.specs("x:float32[batch,4]"), zoo.BATCH)
    with pytest.raises(StageError, match=r"^export-onnx: the model cannot be scripted: .*\(.*m\.py:5\)$"):
        ExportOnnx(exporter="script").run(source, tmp_path / "out")


def test_an_opset_that_dynamo_cannot_write_is_refused_and_not_replaced(make: Make, tmp_path: Path) -> None:
    """Dynamo writes 18 and converts down where onnx can; where it cannot, it leaves 18 and says nothing."""
    message = (
        r"^export-onnx: the dynamo exporter wrote opset 18; expected 13\. "
        r"Use --opset 18, or --exporter torchscript\.$"
    )
    with pytest.raises(StageError, match=message):
        ExportOnnx(exporter="dynamo", opset=13).run(make("conv"), tmp_path)


def test_the_opset_is_the_one_asked_for(make: Make) -> None:
    for opset in (13, 17, 20):
        artifact = make("linear", ExportOnnx(exporter="torchscript", opset=opset))
        assert onnx_file.facts(artifact.path).opset == opset


def test_another_ir_version_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"the file has IR version 8; expected 10"):
        ExportOnnx(exporter="torchscript", opset=17, ir_version=10).run(make("linear"), tmp_path)


def test_dynamo_writes_one_file(make: Make) -> None:
    artifact = make("two", DYNAMO)
    assert artifact.files == ()
    assert [p.name for p in artifact.path.parent.iterdir()] == ["model.onnx"]


def test_a_dimension_that_dynamo_fixes_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError) as caught:
        DYNAMO.run(zoo.bad("loses_batch").source(tmp_path), tmp_path)
    line = next(n for n, text in enumerate(zoo.HERE.read_text().splitlines(), 1) if "in range(int(x.shape[0]))" in text)
    assert str(caught.value) == (
        f"export-onnx: the dynamo exporter failed: {zoo.HERE}:{line}: input 'x' lost its dynamic dimension 'batch': axis 0 is fixed "
        "to 2. The Python loop there was unrolled for that size: compute without a loop, or use --exporter script, which keeps loops."
    )


def test_a_size_that_becomes_a_number_is_named_with_its_line(tmp_path: Path) -> None:
    code = """
        import torch
        class Baked(torch.nn.Module):
            def forward(self, x):
                n = int(x.shape[1])
                if n == 3:
                    return x
                return x * 2
    """
    (tmp_path / "m.py").write_text(textwrap.dedent(code))
    dims = zoo.BATCH | {"length": zoo.DimRange.parse("2:3:8")}
    source = make_source(f"{tmp_path / 'm.py'}:Baked", tmp_path / "s", zoo.specs("x:float32[batch,length]"), dims)
    with pytest.raises(StageError) as caught:
        DYNAMO.run(source, tmp_path / "out")
    assert f"{tmp_path / 'm.py'}:5: input 'x' lost its dynamic dimension 'length': axis 1 is fixed to 3." in str(
        caught.value
    )
    assert "The model uses that size as a constant" in str(caught.value)


def test_a_loop_that_a_trace_unrolls_is_noted_with_its_line(tmp_path: Path) -> None:
    code = """
        import torch
        class Steps(torch.nn.Module):
            def forward(self, x):
                total = x[:, :1] * 0
                for i in range(x.shape[1]):
                    total = total * 0.5 + x[:, : x.shape[1]][:, i : i + 1]
                return total
    """
    (tmp_path / "m.py").write_text(textwrap.dedent(code))
    dims = zoo.BATCH | {"length": zoo.DimRange.parse("2:3:8")}
    source = make_source(f"{tmp_path / 'm.py'}:Steps", tmp_path / "s", zoo.specs("x:float32[batch,length]"), dims)
    found = TORCHSCRIPT.run(source, tmp_path / "traced")
    note = f"{tmp_path / 'm.py'}:6: the trace baked in a value: range() over a size of the example unrolls the loop"
    assert found.notes[1:] == (note,)  # slices by a size are traced rightly, and not noted
    prover = Prover(source, Samples(source.inputs, source.dims), Requirements())
    assert not prover.parity(found).passed
    assert prover.parity(ExportOnnx(exporter="script", opset=17).run(source, tmp_path / "scripted")).passed


def test_a_dimension_that_the_file_has_lost_is_named(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exporter_that_fixes_sizes(
        module: torch.nn.Module,
        feed: Feed,
        path: Path,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        opset: int,
    ) -> None:
        torch.onnx.export(
            module,
            tuple(torch.from_numpy(array) for array in feed.values()),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=[spec.name for spec in inputs],
            output_names=[spec.name for spec in outputs],
        )

    monkeypatch.setattr(export_onnx, "_torchscript", exporter_that_fixes_sizes)
    with pytest.raises(StageError, match=r"input 'input' lost its dynamic dimension 'batch': axis 0 is fixed to 2\. "):
        TORCHSCRIPT.run(make("linear"), tmp_path)


def test_a_branch_on_data_is_refused_by_dynamo_at_the_users_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = zoo.bad("branches").source(tmp_path)
    with pytest.raises(
        StageError, match=r"the dynamo exporter failed: \S*tests/support/zoo\.py:\d+: GuardOnDataDependent"
    ):
        DYNAMO.run(source, tmp_path)
    assert capfd.readouterr() == ("", "")  # what torch prints of its graphs is no message


@pytest.mark.parametrize("name", ["branches", "loses_batch"])
def test_what_a_trace_bakes_in_is_noted_with_its_line(name: str, tmp_path: Path) -> None:
    artifact = TORCHSCRIPT.run(zoo.bad(name).source(tmp_path), tmp_path)
    note = artifact.notes[1]
    assert note.startswith(f"{zoo.HERE}:")
    assert "the trace baked in a value" in note


def test_outputs_of_other_names_are_refused(make: Make, tmp_path: Path) -> None:
    source = make("two")
    wrong = source.model_copy(update={"outputs": source.outputs[:1]})
    with pytest.raises(StageError):
        TORCHSCRIPT.run(wrong, tmp_path)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("output:float16[batch,3]", r"output 'output' is float32\[batch,3\] in the file; expected float16\[batch,3\]"),
        ("output:float32[batch]", r"output 'output' is float32\[batch,3\] in the file; expected float32\[batch\]"),
        ("output:float32[batch,5]", r"output 'output' is float32\[batch,3\] in the file; expected float32\[batch,5\]"),
    ],
)
def test_outputs_that_are_not_as_declared_are_refused(make: Make, tmp_path: Path, declared: str, message: str) -> None:
    wrong = make("linear").model_copy(update={"outputs": zoo.specs(declared)})
    with pytest.raises(StageError, match=message):
        TORCHSCRIPT.run(wrong, tmp_path)


def test_a_changed_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("import torch\n\ndef build():\n    return torch.nn.Linear(4, 3)\n")
    sample = zoo.bad("build")
    source = zoo.make_source(f"{tmp_path / 'm.py'}:build", tmp_path, sample.inputs, sample.dims)
    (tmp_path / "m.py").write_text("import torch\n\ndef build():\n    return torch.nn.Linear(4, 2)\n")
    with pytest.raises(Exception, match="have changed since"):
        TORCHSCRIPT.run(source, tmp_path / "out")


def test_an_output_may_be_called_as_an_inner_value_is(tmp_path: Path) -> None:
    code = """
        from torch import nn
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.table = nn.Embedding(5, 4)
            def forward(self, ids):
                return self.table(ids).mean(1).relu()
    """
    (tmp_path / "m.py").write_text(textwrap.dedent(code))
    dims = zoo.BATCH | {"length": zoo.DimRange.parse("2:3:8")}
    inputs = zoo.specs("ids:int64[batch,length]")
    for name in ("embedding", "mean", "relu"):  # what dynamo calls the values on the way
        source = make_source(f"{tmp_path / 'm.py'}:Model", tmp_path / name, inputs, dims, outputs=(name,))
        artifact = ExportOnnx(exporter="dynamo").run(source, tmp_path / f"{name}-onnx")
        assert [spec.name for spec in onnx_file.facts(artifact.path).outputs] == [name]
