"""Functions that exporters write for small values only: each file equals the model far beyond them."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from optkit import onnx_file
from optkit.artifact import Artifact
from optkit.artifact.tensors import DimRange
from optkit.pytorch.source import load_module, make_source
from optkit.stages import ExportOnnx
from tests.support.zoo import specs

BATCH = {"batch": DimRange(min=1, opt=4, max=16)}
MODEL = """
import torch
from torch.nn import functional as F

class Model(torch.nn.Module):
    def forward(self, x):
        return {expression}

def build():
    return Model()
"""
FAR = {
    "logsigmoid": "F.logsigmoid(x)",
    "log of sigmoid": "torch.log(torch.sigmoid(x)) + torch.sigmoid(x)",  # the sigmoid stays for its other reader
    "binary cross entropy": "F.binary_cross_entropy_with_logits(x, (x > 0).float(), reduction='none')",
    "focal loss": "(1 - torch.sigmoid(x)) ** 2 * F.logsigmoid(x)",
    "logaddexp": "torch.logaddexp(x, x.flip(-1))",
    "logaddexp2": "torch.logaddexp2(x, x.flip(-1))",
    "logaddexp of branches": "torch.logaddexp(torch.logaddexp(x, -x), x * 2)",
    "log1p": "torch.log1p(x.abs() * 1e-6) * 1e6",
    "expm1": "torch.expm1(x * 1e-6) * 1e6",
    "log1p and expm1": "torch.expm1(torch.log1p(x.abs()))",
}


def made(expression: str, exporter: str, tmp_path: Path) -> tuple[Artifact, Artifact]:
    (tmp_path / "model.py").write_text(MODEL.format(expression=expression))
    source = make_source(f"{tmp_path / 'model.py'}:build", tmp_path / "source", specs("x:float32[batch,6]"), BATCH)
    return source, ExportOnnx.model_validate({"exporter": exporter}).run(source, tmp_path / "out")


# The other exporter has no operator for some, and does not note which function a node is of.
BOTH = [(name, "dynamo") for name in FAR] + [
    (name, "torchscript") for name in ("logsigmoid", "log of sigmoid", "focal loss")
]


@pytest.mark.parametrize(("name", "exporter"), BOTH)
def test_the_file_equals_the_model_far_beyond_normal_values(name: str, exporter: str, tmp_path: Path) -> None:
    source, artifact = made(FAR[name], exporter, tmp_path)
    assert any("accurate for far-reaching values" in note for note in artifact.notes)
    onnx_file.check(artifact.path)
    session = onnxruntime.InferenceSession(artifact.path, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for scale in (0, 1e-40, 1e-8, 1, 10, 30, 80, 1000):
        x = (rng.standard_normal((5, 6)) * scale).astype(np.float32)
        expected = load_module(source)(torch.from_numpy(x)).numpy()
        (found,) = session.run(None, {"x": x})
        finite = np.isfinite(expected)
        np.testing.assert_allclose(found[finite], expected[finite], rtol=1e-3, atol=1e-4, err_msg=f"at {scale}")


@pytest.mark.parametrize(
    "expression",
    ["torch.log(torch.exp(x) + torch.exp(-x))", "torch.log(1 + x.abs())", "torch.exp(x) - 1", "x.abs().log()"],
)
def test_what_the_user_wrote_himself_stays_as_it_is(expression: str, tmp_path: Path) -> None:
    _, artifact = made(expression, "dynamo", tmp_path)
    assert not any("far-reaching" in note for note in artifact.notes)


def test_infinite_inputs_keep_their_answers(tmp_path: Path) -> None:
    source, artifact = made("torch.logaddexp(x, x)", "dynamo", tmp_path)
    x = np.array([[-np.inf, np.inf, 0, 1, 2, 3]], np.float32)
    session = onnxruntime.InferenceSession(artifact.path, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x})[0], load_module(source)(torch.from_numpy(x)), rtol=1e-5)
