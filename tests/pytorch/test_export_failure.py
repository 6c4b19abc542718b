"""The message of a failed export: the cause, the line of the user's model, and the usual fix."""

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

from optkit import onnx_file
from optkit.artifact import Artifact
from optkit.artifact.tensors import DimRange
from optkit.errors import ModelError, StageError
from optkit.pytorch.source import make_source
from optkit.runners import open_runner
from optkit.stages import ExportOnnx, ExportProgram, ExportTorchScript, Stage
from tests.support import zoo
from tests.support.zoo import Make

CODE = """
    import torch
    from torch import nn
    class Branch(nn.Module):
        def forward(self, x):
            if x.sum() > 0:
                return x
            return -x
    class Bessel(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)
    class Ignores(nn.Module):
        def forward(self, x, mask):
            return x * 2
    class Aliased(nn.Module):
        def forward(self, x):
            y = x * 2
            return y, y, x
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4).half()
        def forward(self, x):
            return self.layer(x)
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(4, 3, batch_first=True)
            self.lstm = nn.LSTM(3, 2, batch_first=True)
        def forward(self, x):
            return self.lstm(self.gru(x.unsqueeze(1))[0])[0]
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(1, 3, batch_first=True)
        def forward(self, x):
            lengths = [4] * len(x)
            packed = nn.utils.rnn.pack_padded_sequence(x.unsqueeze(2), lengths, batch_first=True)
            return nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True)[0]
    class InPlace(nn.Module):
        def forward(self, x):
            x += 1
            return x
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "m.py"
    path.write_text(textwrap.dedent(CODE))
    return path


def source(code: Path, name: str, *more: str, dims: dict[str, DimRange] = zoo.BATCH) -> Artifact:
    inputs = zoo.specs("x:float32[batch,4]", *more)
    return make_source(f"{code}:{name}", code.parent / f"source-{name}", inputs, dims)


def test_a_branch_on_data(code: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError) as caught:
        ExportOnnx(exporter="dynamo").run(source(code, "Branch"), tmp_path / "out")
    assert re.search(r"the dynamo exporter failed: .*m\.py:6: GuardOnDataDependentSymNode", str(caught.value))
    assert "The model branches on the values of a tensor: use torch.where or torch.cond there" in str(caught.value)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_an_operator_that_onnx_lacks(
    exporter: str, code: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stage = ExportOnnx(exporter=exporter, opset=18)
    with pytest.raises(StageError) as caught:
        stage.run(source(code, "Bessel"), tmp_path / "out")
    assert re.search(rf"the {exporter} exporter failed: .*m\.py:11: .*bessel_j0", str(caught.value))
    assert re.search(
        r"ONNX has no operator for \S*bessel_j0 at this opset: replace it by other operators", str(caught.value)
    )
    assert capfd.readouterr() == ("", "")  # the graph that the exporter prints goes into the message, not on the screen


@pytest.mark.parametrize(
    "stage", [ExportOnnx(exporter="torchscript", opset=17), ExportTorchScript(method="trace")], ids=str
)
def test_strict_refuses_a_baked_in_value(stage: ExportOnnx | ExportTorchScript, code: Path, tmp_path: Path) -> None:
    branch = source(code, "Branch")
    lenient = stage.run(branch, tmp_path / "lenient")
    assert any(
        re.search(r"m\.py:6: the trace baked in a value: Converting a tensor to a Python boolean", n)
        for n in lenient.notes
    )
    with pytest.raises(StageError, match=r"which strict does not allow: .*m\.py:6: the trace baked in a value"):
        stage.model_copy(update={"strict": True}).run(branch, tmp_path / "strict")


TRACES = [ExportOnnx(exporter="torchscript", opset=17), ExportTorchScript(method="trace")]


@pytest.mark.parametrize("stage", TRACES, ids=str)
def test_what_torch_checks_in_itself_is_no_baked_in_value(
    stage: ExportOnnx | ExportTorchScript, code: Path, tmp_path: Path
) -> None:
    artifact = stage.model_copy(update={"strict": True}).run(source(code, "Recurrent"), tmp_path / "out")
    assert not any("baked in" in note for note in artifact.notes)


@pytest.mark.parametrize("stage", TRACES, ids=str)
def test_a_value_baked_in_inside_torch_is_told_at_the_users_line(
    stage: ExportOnnx | ExportTorchScript, code: Path, tmp_path: Path
) -> None:
    line = (
        code.read_text()
        .splitlines()
        .index("        packed = nn.utils.rnn.pack_padded_sequence(x.unsqueeze(2), lengths, batch_first=True)")
        + 1
    )
    with pytest.raises(StageError) as caught:
        stage.model_copy(update={"strict": True}).run(source(code, "Packed"), tmp_path / "out")
    assert f"m.py:{line}: the trace baked in a value: torch.as_tensor results are registered as constants" in str(
        caught.value
    )
    assert re.search(r"\(in \S+torch/nn/utils/rnn\.py:\d+\)", str(caught.value))


def test_strict_lets_a_plain_model_through(make: Make, tmp_path: Path) -> None:
    ExportOnnx(exporter="torchscript", opset=17, strict=True).run(make("conv"), tmp_path)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript", "script"])
def test_an_input_that_no_output_depends_on_is_kept_and_told(exporter: str, code: Path, tmp_path: Path) -> None:
    """The TorchScript exporter leaves it out, and a client that sends it as forward takes it would be refused."""
    source_ = source(code, "Ignores", "mask:int64[batch,length]", dims=zoo.BATCH | {"length": DimRange.parse("1:2:4")})
    artifact = ExportOnnx(exporter=exporter, opset=18).run(source_, tmp_path / "kept")
    assert "no output depends on input 'mask'" in artifact.notes
    assert onnx_file.facts(artifact.path).inputs == source_.inputs
    with open_runner(artifact) as runner:
        feed = {"x": np.ones((3, 4), np.float32), "mask": np.ones((3, 2), np.int64)}
        assert (runner.infer(feed)["output"] == 2).all()


@pytest.mark.parametrize(
    "stage",
    [
        *(ExportOnnx(exporter=exporter, opset=18) for exporter in ("dynamo", "torchscript", "script")),
        *(ExportTorchScript(method=method) for method in ("script", "trace")),
        ExportProgram(),
    ],
    ids=str,
)
def test_outputs_that_are_one_tensor_keep_their_names_and_values(stage: Stage, code: Path, tmp_path: Path) -> None:
    artifact = stage.run(source(code, "Aliased"), tmp_path / "out")
    assert [spec.name for spec in artifact.outputs] == ["output_0", "output_1", "output_2"]
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    with open_runner(artifact) as runner:
        got = runner.infer({"x": x})
    got["output_0"][:] = 0  # each is the caller's own, whatever shared memory inside the model
    assert (got["output_1"] == 2 * x).all()
    assert (got["output_2"] == np.arange(12).reshape(3, 4)).all()


def test_a_model_on_another_dtype_is_refused_with_both_dtypes(code: Path) -> None:
    with pytest.raises(
        ModelError, match=r"m\.py:24: .*\(with x float32\[1, 4\], weights float16\)\. Return model\.float\(\)"
    ):
        source(code, "Half")


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_a_model_that_writes_to_its_input_is_exported_right(exporter: str, code: Path, tmp_path: Path) -> None:
    artifact = ExportOnnx(exporter=exporter, opset=18).run(source(code, "InPlace"), tmp_path / "out")
    feed = {"x": np.zeros((3, 4), np.float32)}
    with open_runner(artifact) as runner:
        assert (runner.infer(feed)["output"] == 1).all()
    assert (feed["x"] == 0).all()
