"""What forwards take and return, through every exporter: the file answers as the model does, under names that stay."""

import textwrap
from pathlib import Path

import numpy as np
import pytest

from optkit.artifact import Artifact
from optkit.checks import Prover, Requirements
from optkit.data import Samples
from optkit.errors import StageError
from optkit.pytorch.source import make_source
from optkit.runners import open_runner
from optkit.stages import ExportOnnx, ExportProgram, ExportTorchScript, Stage
from tests.support import zoo

CODE = """
    import dataclasses
    import torch
    from torch import nn
    @dataclasses.dataclass
    class Estimate:
        mean: torch.Tensor
        spread: torch.Tensor
        missing: torch.Tensor | None = None
    class Nested(nn.Module):
        def forward(self, x, *, shift):
            return ({"a": Estimate(x * 2, x + shift)}, x - shift)
    class KeywordOnly(nn.Module):
        def forward(self, x, *, scale=None):
            return x * 2 if scale is None else x * scale
    class LeavesOut(nn.Module):
        def forward(self, x, y=None, z=None):
            return x * 2 if z is None else x * z
    class SameName(nn.Module):
        def forward(self, x):
            return {"x": x * 2, "other": x}
"""
EXPORTERS = [
    ExportOnnx(exporter="dynamo", opset=18),
    ExportOnnx(exporter="torchscript", opset=18),
    ExportTorchScript(),
    ExportTorchScript(method="trace"),
    ExportProgram(),
]


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("signatures") / "m.py"
    path.write_text(textwrap.dedent(CODE))
    return path


def source(code: Path, name: str, *inputs: str) -> Artifact:
    return make_source(f"{code}:{name}", code.parent / name, zoo.specs(*inputs), zoo.BATCH)


def passes(artifact: Artifact, reference: Artifact) -> bool:
    return Prover(reference, Samples(reference.inputs, reference.dims), Requirements()).parity(artifact).passed


@pytest.mark.parametrize("stage", EXPORTERS, ids=str)
def test_a_dataclass_in_a_dict_in_a_tuple(stage: Stage, code: Path, tmp_path: Path) -> None:
    nested = source(code, "Nested", "x:float32[batch,4]", "shift:float32[batch,4]")
    assert [spec.name for spec in nested.outputs] == ["output_0.a.mean", "output_0.a.spread", "output_1"]
    artifact = stage.run(nested, tmp_path / "out")
    assert artifact.outputs == nested.outputs
    assert passes(artifact, nested)
    feed = {"x": np.full((3, 4), 5, np.float32), "shift": np.ones((3, 4), np.float32)}
    with open_runner(artifact) as runner:
        assert [found[0, 0] for found in runner.infer(feed).values()] == [10, 6, 4]


def test_a_dataclass_cannot_be_scripted_and_the_message_says_why(code: Path, tmp_path: Path) -> None:
    nested = source(code, "Nested", "x:float32[batch,4]", "shift:float32[batch,4]")
    alone = nested.model_copy(update={"inputs": nested.inputs})
    with pytest.raises(StageError, match="the model cannot be scripted: forward takes some inputs by keyword only"):
        ExportOnnx(exporter="script").run(alone, tmp_path / "out")


@pytest.mark.parametrize("stage", EXPORTERS, ids=str)
@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("KeywordOnly", ("x:float32[batch,4]",)),
        ("KeywordOnly", ("scale:float32[batch,4]", "x:float32[batch,4]")),
        ("LeavesOut", ("x:float32[batch,4]",)),
        ("LeavesOut", ("x:float32[batch,4]", "z:float32[batch,4]")),
        ("SameName", ("x:float32[batch,4]",)),
    ],
)
def test_optional_and_keyword_only_inputs(
    stage: Stage, name: str, inputs: tuple[str, ...], code: Path, tmp_path: Path
) -> None:
    model = source(code, name, *inputs)
    assert passes(stage.run(model, tmp_path / "out"), model)
