"""FP16 on top of Q/DQ: ONNX Runtime makes garbage of its convolutions on CPUs, and our runner does not."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from optkit.artifact import Artifact, Precision
from optkit.pytorch.source import make_source
from optkit.runners import open_runner
from optkit.stages import ConvertFp16, ExportOnnx, QuantizeStatic
from tests.support import zoo
from tests.support.zoo import Make

ONNX = ExportOnnx(exporter="torchscript", opset=20)  # FP16 in Q/DQ nodes needs 19


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def mixed(folder: Path) -> tuple[Artifact, Artifact]:
    """Return a CNN in FP32, and the same in INT8 for TensorRT with FP16 between its Q/DQ nodes.

    Its first bias, divided by the scale that it would have in INT8, lies beyond FP16.
    """
    (folder / "cnn.py").write_text(
        "import torch\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        "    conv = torch.nn.Conv2d(3, 16, 3, padding=1)\n"
        "    conv.weight.data *= 0.1\n"
        "    conv.bias.data += 5\n"
        "    return torch.nn.Sequential(conv, torch.nn.ReLU(), torch.nn.Conv2d(16, 8, 3, padding=1, bias=False))\n"
        "def feeds():\n"
        "    g = torch.Generator().manual_seed(1)\n"
        "    return [{'input': torch.randn(4, 3, 16, 16, generator=g).numpy()} for _ in range(4)]\n"
    )
    module = make_source(f"{folder}/cnn.py:build", folder, zoo.specs("input:float32[batch,3,16,16]"), zoo.BATCH)
    source = ONNX.run(module, folder / "fp32")
    int8 = QuantizeStatic(calibration=f"{folder}/cnn.py:feeds", target="tensorrt").run(source, folder / "int8")
    return source, ConvertFp16().run(int8, folder / "fp16")


def test_the_trap_is_there_and_our_answer_is_right(tmp_path: Path) -> None:
    source, artifact = mixed(tmp_path)
    assert artifact.precision is Precision.INT8
    feed = {"input": np.random.default_rng(2).standard_normal((4, 3, 16, 16)).astype(np.float32)}
    with open_runner(source) as right, open_runner(artifact) as runner:
        expected, found = right.infer(feed)["output"], runner.infer(feed)["output"]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    plain = onnxruntime.InferenceSession(artifact.path, options, providers=["CPUExecutionProvider"])
    trapped = plain.run(None, feed)[0]
    # NaN, zeros or numbers far off. When this fails the trap is gone, and the runner's option may go too.
    assert not np.linalg.norm(trapped - expected) < 0.5 * np.linalg.norm(expected)
    assert cosine(expected, found) > 0.999


def test_other_int8_models_keep_the_optimizer(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = make("conv", ONNX, QuantizeStatic(calibration=f"{zoo.HERE}:conv_feeds"))
    asked: list[object] = []
    really = onnxruntime.InferenceSession

    def session(*args: object, **keys: object) -> object:
        asked.append(keys.get("disabled_optimizers"))
        return really(*args, **keys)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with open_runner(artifact):
        pass
    assert asked == [None]
