"""Engines on a real GPU: build, inspect, run, time, parity. `pytest -m gpu` runs these.

OPTKIT_TENSORRT_PYTHON names the interpreter that has TensorRT and pycuda, where it is another than pytest's.
"""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from optkit.artifact import Artifact
from optkit.artifact.tensors import DimRange, corners
from optkit.checks import Prover, Requirements
from optkit.choose.stage import run_stage
from optkit.data import Samples, random_feed
from optkit.errors import FeedError
from optkit.pytorch.source import open_artifact
from optkit.runners.base import CallPlan, Device
from optkit.runners.tensorrt import TensorRtRunner
from optkit.stages import BuildTensorRt, ExportOnnx, QuantizeStatic
from optkit.tensorrt.installed import find_installed
from tests.support import zoo
from tests.support.needs import need
from tests.support.zoo import Make

pytestmark = pytest.mark.gpu
PYTHON = os.environ.get("OPTKIT_TENSORRT_PYTHON")
RULE = CallPlan(drop_s=0.02, drop_calls=3, block_s=0.1, block_calls=20)


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def runtime(request: pytest.FixtureRequest) -> str:
    here = find_installed(Path(PYTHON) if PYTHON else None)
    need(here.versions[request.param] and here.pycuda, f"{request.param} or pycuda is not installed")
    if request.param == "tensorrt-rtx" and here.target not in ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121"):
        pytest.skip(f"TensorRT-RTX does not build for {here.target}")
    return str(request.param)


def wide_conv() -> torch.nn.Module:
    """Return a convolution that is large enough for a GPU to be faster in FP16: 8.6 takes whichever type is fastest."""
    torch.manual_seed(0)
    return torch.nn.Conv2d(64, 64, 3).eval()


@pytest.fixture
def wide(tmp_path: Path) -> Artifact:
    path = tmp_path / "wide.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            wide_conv(), (torch.ones(2, 64, 32, 32),), str(path), input_names=["x"], output_names=["y"], opset_version=17,
            dynamo=False, dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
        )  # fmt: skip
    return open_artifact(path, {"batch": DimRange(min=1, opt=8, max=16)})


def engine_of(source: Artifact, folder: Path, **settings: object) -> tuple[Artifact, Prover]:
    prover = Prover(source, Samples(source.inputs, source.dims, None), Requirements())
    return run_stage(BuildTensorRt.model_validate({"python": PYTHON, **settings}), source, folder, prover), prover


@pytest.mark.parametrize("name", zoo.SAMPLES)
def test_answers_are_right_at_every_corner(name: str, runtime: str, make: Make, tmp_path: Path) -> None:
    sample = zoo.SAMPLES[name]
    engine, _ = engine_of(make(name, ExportOnnx(exporter="torchscript", opset=17)), tmp_path, runtime=runtime)
    with TensorRtRunner(engine, Device.CUDA) as runner:
        for sizes in corners(sample.dims):
            found = runner.infer(sample.feed(sizes))
            for output, want in sample.expected(sample.feed(sizes)).items():
                np.testing.assert_allclose(found[output], want, atol=1e-4, rtol=1e-3, err_msg=str(sizes))


def test_fp16_is_seen_in_the_layers_and_parity_holds(runtime: str, wide: Artifact, tmp_path: Path) -> None:
    engine, prover = engine_of(wide, tmp_path, runtime=runtime, precision="fp16", require={"fp16": 0.5})
    assert prover.parity(engine).passed
    assert engine.engine
    assert {share.precision: share.layers for share in engine.engine.layers}.get("fp16", 0) >= 0.5


def test_int8_is_seen_in_the_layers_and_parity_holds(runtime: str, make: Make, tmp_path: Path) -> None:
    quantized = QuantizeStatic(calibration=f"{zoo.HERE}:conv_feeds", target="tensorrt")
    source = make("conv", ExportOnnx(exporter="torchscript", opset=17), quantized)
    engine, prover = engine_of(source, tmp_path, runtime=runtime, precision="int8", require={"int8": 0.3})
    assert prover.parity(engine).passed
    assert engine.engine
    assert {share.precision: share.layers for share in engine.engine.layers}.get("int8", 0) >= 0.3


def test_fp32_has_all_its_bits_unless_tf32_is_asked_for(runtime: str, wide: Artifact, tmp_path: Path) -> None:
    """Products of 10 bits are a thousand times farther from the right answer than those of 23."""
    feed = random_feed(wide.inputs, {"batch": 8})
    want = wide_conv().double()(torch.from_numpy(feed["x"]).double()).detach().numpy()
    away = {}
    for tf32 in (False, True):
        engine, _ = engine_of(wide, tmp_path / str(tf32), runtime=runtime, tf32=tf32)
        with TensorRtRunner(engine, Device.CUDA) as runner:
            away[tf32] = float(np.abs(runner.infer(feed)["y"] - want).max())
    assert away[False] < 1e-5
    assert away[True] > 1e-4  # the GPU computes products of TF32, from sm80 on


@pytest.mark.parametrize("graph", [False, True])
def test_times_and_their_parts(runtime: str, graph: bool, make: Make, tmp_path: Path) -> None:
    engine, _ = engine_of(make("conv", ExportOnnx(exporter="torchscript", opset=17)), tmp_path, runtime=runtime)
    feed = zoo.SAMPLES["conv"].feed({"batch": 8})
    with TensorRtRunner(engine, Device.CUDA, streams=2, cuda_graph=graph) as runner:
        times = runner.own_times(feed, RULE)
        assert min(times.times_ms) > 0
        assert runner.parts(feed)[0].compute_ms > 0
        assert runner.per_second
        np.testing.assert_allclose(
            runner.infer(feed)["output"], zoo.SAMPLES["conv"].expected(feed)["output"], atol=1e-4
        )


def test_a_batch_beyond_the_profile_is_refused(runtime: str, make: Make, tmp_path: Path) -> None:
    engine, _ = engine_of(make("linear", ExportOnnx(exporter="torchscript", opset=17)), tmp_path, runtime=runtime)
    with (
        TensorRtRunner(engine, Device.CUDA) as runner,
        pytest.raises(FeedError, match="no profile of the engine fits"),
    ):
        runner.infer(zoo.SAMPLES["linear"].feed({"batch": 17}))
