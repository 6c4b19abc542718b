"""INT8 for TensorRT is proven with exact sums: on x86 processors without VNNI, ONNX Runtime's own overflow in 16 bits."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from optkit import onnx_file
from optkit.artifact import Artifact
from optkit.benchmark import this_machine
from optkit.checks.parity import sqnr_db
from optkit.pytorch.source import make_source
from optkit.runners import open_runner
from optkit.stages import ExportOnnx, QuantizeStatic
from tests.support import zoo

FEED = {"input": np.random.default_rng(2).uniform(0, 1, (32, 16)).astype(np.float32)}


@pytest.fixture
def engine_file(tmp_path: Path) -> Artifact:
    """Return a layer in INT8 for TensorRT whose sums of two products do not fit in 16 bits: all inputs and weights are large."""
    (tmp_path / "layer.py").write_text(
        "import torch\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        "    layer = torch.nn.Linear(16, 8)\n"
        "    layer.weight.data = 1 + 0.01 * torch.rand(8, 16)\n"
        "    return layer\n"
        "def feeds():\n"
        "    return [{'input': torch.rand(32, 16, generator=torch.Generator().manual_seed(1)).numpy()}]\n"
    )
    module = make_source(f"{tmp_path}/layer.py:build", tmp_path, zoo.specs("input:float32[batch,16]"), zoo.BATCH)
    source = ExportOnnx(exporter="torchscript", opset=17).run(module, tmp_path / "fp32")
    return QuantizeStatic(calibration=f"{tmp_path}/layer.py:feeds", target="tensorrt").run(source, tmp_path / "int8")


def session(file: Path, level: onnxruntime.GraphOptimizationLevel) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = level
    found: np.ndarray = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"]).run(None, FEED)[
        0
    ]
    return found


def test_sums_are_those_of_the_nodes_one_by_one(engine_file: Artifact) -> None:
    exact = session(engine_file.path, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    with open_runner(engine_file) as runner:
        assert (sqnr_db(exact, runner.infer(FEED)["output"]) or 99) > 40


@pytest.mark.skipif(this_machine().vnni is not False, reason="the processor has VNNI: nothing overflows")
def test_the_trap_is_there(engine_file: Artifact) -> None:
    exact = session(engine_file.path, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    plain = session(engine_file.path, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
    assert not (sqnr_db(exact, plain) or 99) > 10


def test_a_file_for_tensorrt_is_told_from_one_for_cpus(engine_file: Artifact, tmp_path: Path) -> None:
    assert onnx_file.has_float_weights_behind_qdq(engine_file.path)
    fp32 = tmp_path / "fp32" / "model.onnx"
    assert not onnx_file.has_float_weights_behind_qdq(fp32)
