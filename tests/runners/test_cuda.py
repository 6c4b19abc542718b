"""Calls on a GPU through a stand-in that refuses what CUDA refuses; the same on a real one with `pytest -m gpu`."""

import copy
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch

from optkit.artifact import Artifact
from optkit.artifact.findings import CallParts
from optkit.benchmark import BenchSettings, measure
from optkit.benchmark.concurrency import concurrent_load
from optkit.data import Samples
from optkit.errors import RunnerError
from optkit.runners import Device, Runner, open_runner
from optkit.runners import pytorch as pytorch_runner
from optkit.runners.cuda import ROUNDS, call_parts
from optkit.runners.onnxruntime import RECORD_PLACEMENT, OnnxRuntimeRunner, placement_of
from optkit.stages import ExportOnnx, ExportTorchScript
from tests.support import zoo
from tests.support.fake_cuda import Doubling, FakeEvent, FakeGpu, FakeSession, cuda_sessions, gpu
from tests.support.zoo import Make

__all__ = ["cuda_sessions", "gpu"]  # fixtures
FEED = {"input": np.ones((2, 4), np.float32)}
PARTS = {"copy_in_ms": 2.0, "compute_ms": 5.0, "copy_out_ms": 3.0}
ROUND = ["event", "copy in", "event", "call", "event", "copy out", "event", "wait"]


@pytest.fixture
def module(gpu: FakeGpu, make: Make, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    """Return an artifact in Python whose module is the stand-in's."""
    monkeypatch.setattr(pytorch_runner, "load_module", lambda artifact: Doubling(gpu))
    monkeypatch.setattr(copy, "deepcopy", lambda module: module)
    return make("linear")


def on_cuda(artifact: Artifact, **options: object) -> Runner:
    return open_runner(artifact, Device.CUDA, **options)


def parts_of(found: tuple[CallParts, ...]) -> dict[str, float]:
    (parts,) = found
    assert parts.enqueue_ms >= 0
    return parts.model_dump(exclude={"enqueue_ms"})


def test_the_stand_in_refuses_the_time_of_events_that_nobody_waited_for(gpu: FakeGpu) -> None:
    start, end = FakeEvent(gpu, enable_timing=True), FakeEvent(gpu, enable_timing=True)
    start.record(gpu.default)
    gpu.work("call", 5)
    end.record(gpu.default)
    with pytest.raises(RuntimeError, match="must be completed"):
        start.elapsed_time(end)
    end.synchronize()
    assert start.elapsed_time(end) == 5


def test_the_parts_are_what_lies_between_the_events(gpu: FakeGpu) -> None:
    stream = gpu.module().Stream()
    works = [lambda what=what, ms=ms: gpu.work(what, ms, stream) for what, ms in (("a", 1), ("b", 20), ("c", 300))]
    found = call_parts(stream, *works)
    assert (found.copy_in_ms, found.compute_ms, found.copy_out_ms) == (1, 20, 300)
    assert gpu.log == ["event", "a", "event", "b", "event", "c", "event", "wait"] * ROUNDS


def test_pytorch_tells_the_parts_of_a_call(gpu: FakeGpu, module: Artifact) -> None:
    with on_cuda(module) as runner, runner.calling():
        assert parts_of(runner.parts(FEED)) == PARTS
    assert gpu.log[-len(ROUND) * ROUNDS :] == ROUND * ROUNDS


def test_a_call_of_pytorch_is_awaited(gpu: FakeGpu, module: Artifact) -> None:
    with on_cuda(module) as runner, runner.calling():
        call = runner.bind(FEED)
        gpu.log.clear()
        call()
        assert gpu.log == ["call", "wait"]
        assert gpu.default.over_ms == gpu.default.put_ms


def test_pytorch_captures_after_calls_on_another_stream_and_replays(gpu: FakeGpu, module: Artifact) -> None:
    with on_cuda(module, cuda_graph=True) as runner, runner.calling():
        call = runner.bind(FEED)
        assert gpu.log == [
            "wait for all", "1001 waits for 1000", "call", "call", "call", "1000 waits for 1001", "capture",
        ]  # fmt: skip
        gpu.log.clear()
        call()
        assert gpu.log == ["replay", "wait"]
        assert parts_of(runner.parts(FEED)) == PARTS
        assert gpu.log[-len(ROUND) :] == [what.replace("call", "replay") for what in ROUND]


def test_what_cannot_be_captured_is_refused_and_not_run_without_a_graph(
    gpu: FakeGpu, module: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pytorch_runner, "load_module", lambda artifact: Doubling(gpu, waits=True))
    with (
        on_cuda(module, cuda_graph=True) as runner,
        pytest.raises(
            RunnerError,
            match=r"cannot be captured as a CUDA graph \(CUDA error: operation not permitted.*without a CUDA graph",
        ),
    ):
        runner.bind(FEED)


def test_each_caller_of_pytorch_has_a_stream_of_its_own(gpu: FakeGpu, module: Artifact) -> None:
    with on_cuda(module, streams=2) as runner:
        streams = []
        for _ in range(2):
            with runner.calling():
                streams.append(gpu.now_on[-1])
                runner.bind(FEED)()
    assert len({*map(id, streams), id(gpu.default)}) == 3
    assert all(stream.put_ms == stream.over_ms == 5 for stream in streams)
    with on_cuda(module) as runner, runner.calling():
        assert gpu.now_on == [gpu.default]


def test_onnxruntime_tells_the_parts_on_a_stream_that_torch_knows(
    gpu: FakeGpu, cuda_sessions: list[FakeSession], onnx_linear: Artifact
) -> None:
    with on_cuda(onnx_linear) as runner:
        assert parts_of(runner.parts(FEED)) == PARTS
    (session,) = cuda_sessions
    assert session.options == {"use_tf32": "0", "user_compute_stream": str(session.stream.cuda_stream)}
    assert session.stream is gpu.streams[1]
    assert gpu.log[-len(ROUND) * ROUNDS :] == ROUND * ROUNDS


def test_a_call_of_onnxruntime_has_buffers_that_stay_and_is_awaited(
    gpu: FakeGpu, cuda_sessions: list[FakeSession], onnx_linear: Artifact
) -> None:
    with on_cuda(onnx_linear) as runner:
        call = runner.bind(FEED)
        gpu.log.clear()
        call()
        assert gpu.log == ["call", "wait"]


def test_onnxruntime_captures_one_graph_for_each_binding(
    gpu: FakeGpu, cuda_sessions: list[FakeSession], onnx_linear: Artifact
) -> None:
    with on_cuda(onnx_linear, cuda_graph=True) as runner:
        calls = [runner.bind({"input": np.ones((batch, 4), np.float32)}) for batch in (1, 8)]
        assert gpu.log == ["call", "capture"] * 2
        gpu.log.clear()
        for call in (*calls, *calls):
            call()
        assert gpu.log == ["replay", "wait"] * 4
        assert parts_of(runner.parts(FEED)) == PARTS
        assert gpu.log[-len(ROUND) :] == [what.replace("call", "replay") for what in ROUND]
        np.testing.assert_allclose(runner.infer(FEED)["output"], zoo.SAMPLES["linear"].expected(FEED)["output"])
    assert cuda_sessions[0].options["enable_cuda_graph"] == "1"
    assert len(cuda_sessions[0].graphs) == 3


def test_a_graph_that_onnxruntime_cannot_capture_is_refused(
    gpu: FakeGpu, cuda_sessions: list[FakeSession], onnx_linear: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    with on_cuda(onnx_linear, cuda_graph=True) as runner:
        assert isinstance(runner, OnnxRuntimeRunner)
        monkeypatch.setattr(
            runner, "_with_graph", runner._without_graph().__class__
        )  # no id: graph 0, for every binding
        runner.bind(FEED)
        with pytest.raises(RunnerError, match=r"model.onnx: cannot be captured as a CUDA graph \(graph 0 was captured"):
            runner.bind(FEED)


def test_with_several_callers_onnxruntime_takes_streams_of_its_own(
    gpu: FakeGpu, cuda_sessions: list[FakeSession], onnx_linear: Artifact
) -> None:
    with on_cuda(onnx_linear, streams=4) as runner:
        assert runner.parts(FEED) == ()  # on whose stream?
        assert runner.why_not_concurrent() is None
    assert cuda_sessions[0].options == {"use_tf32": "0"}
    with on_cuda(onnx_linear, cuda_graph=True) as runner:
        assert runner.why_not_concurrent() == "ONNX Runtime replays CUDA graphs from one thread only"


def test_a_benchmark_says_what_its_numbers_include(
    gpu: FakeGpu, cuda_sessions: list[FakeSession], onnx_linear: Artifact
) -> None:
    settings = BenchSettings(
        device=Device.CUDA, cuda_graph=True, batches=(2,), concurrency=(1, 2), block_s=0, block_calls=3, min_blocks=2,
        max_blocks=2,
    )  # fmt: skip
    found = measure({"m": onnx_linear}, Samples(onnx_linear.inputs, onnx_linear.dims), settings)
    (m,) = found.measurements
    assert (m.device, m.provider, m.cuda_graph, m.includes_copies) == ("cuda", "CUDAExecutionProvider", True, False)
    assert m.parts is not None
    assert m.parts.model_dump(exclude={"enqueue_ms"}) == PARTS
    assert (m.on_cpu, m.nodes) == ({"Shape": 2, "MatMulInteger": 1}, 4)
    assert m.on_cpu_text == "3 of its 4 nodes ran on the CPU: 2 Shape, 1 MatMulInteger"
    (missing,) = found.not_run  # the measurement above stays
    assert missing.artifact == "m, several callers"
    assert missing.reason.endswith("ONNX Runtime replays CUDA graphs from one thread only")


TF32_SET_BY = {
    "nobody": "",
    "the precision of matmul": "torch.set_float32_matmul_precision('high')",
    "the older names": "torch.backends.cudnn.allow_tf32 = False",
    "the newer name of matmul": "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "the newer name of convolutions": "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
    "the newer name of all": "torch.backends.fp32_precision = 'tf32'",
}


@pytest.mark.parametrize("who", TF32_SET_BY)
def test_no_product_is_of_tf32_while_a_module_is_open_and_all_is_as_before_afterwards(who: str) -> None:
    """Whichever of PyTorch's two sets of names the user's module has set; the older ones cannot be read then."""
    code = f"""
import torch
from optkit.runners.cuda import disable_tf32
{TF32_SET_BY[who]}
b = torch.backends
def state():
    return [b.cuda.matmul.fp32_precision == 'tf32', b.cudnn.conv.fp32_precision == 'tf32', b.cudnn.rnn.fp32_precision == 'tf32']
before = state()
with disable_tf32():
    assert state() == [False] * 3, state()
assert state() == before, (before, state())
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_where_nodes_run_is_read_off_a_real_session(onnx_linear: Artifact) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(RECORD_PLACEMENT, "1")
    session = onnxruntime.InferenceSession(onnx_linear.path, options, providers=["CPUExecutionProvider"])
    placed = placement_of(session)
    assert placed.nodes == sum(placed.on_cpu.values()) > 0
    assert set(placed.on_cpu) <= {"Gemm", "MatMul", "FusedMatMul", "Add"}
    with open_runner(onnx_linear) as runner:
        assert runner.placement() is None  # what was asked to run on the CPU is no surprise there


def test_a_graph_on_a_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match="cuda_graph: needs device cuda; the device is cpu"):
        BenchSettings(cuda_graph=True)


@pytest.mark.gpu
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("runtime", ["eager", "torchscript", "onnx"])
def test_on_a_real_gpu(runtime: str, graph: bool, make: Make) -> None:
    stages = {
        "eager": (),
        "torchscript": (ExportTorchScript(),),
        "onnx": (ExportOnnx(exporter="torchscript", opset=17),),
    }
    artifact = make("conv", *stages[runtime])
    if runtime == "onnx":
        with on_cuda(artifact) as runner:
            placed = runner.placement()
        assert placed is not None
        assert placed.nodes > 0
        assert "Conv" not in placed.on_cpu
    samples = Samples(artifact.inputs, artifact.dims)
    feed = zoo.SAMPLES["conv"].feed({"batch": 8})
    with on_cuda(artifact, cuda_graph=graph) as runner, runner.calling():
        call = runner.bind(feed)
        call()
        (parts,) = runner.parts(feed)
        assert min(parts.compute_ms, parts.copy_in_ms, parts.copy_out_ms, parts.enqueue_ms) > 0
        call()  # the parts left the bound call as it was
        np.testing.assert_allclose(
            runner.infer(feed)["output"], zoo.SAMPLES["conv"].expected(feed)["output"], atol=1e-4, rtol=1e-3
        )
    settings = BenchSettings(device=Device.CUDA, cuda_graph=graph, batches=(8,), min_blocks=2, max_blocks=2)
    (m,) = measure({"m": artifact}, samples, settings).measurements
    assert (m.cuda_graph, m.p50_ms > 0) == (graph, True)


@pytest.mark.gpu
@pytest.mark.parametrize("runtime", ["eager", "onnx"])
def test_several_streams_on_a_real_gpu(runtime: str, make: Make) -> None:
    artifact = make("conv", *(() if runtime == "eager" else (ExportOnnx(exporter="torchscript", opset=17),)))
    settings = BenchSettings(device=Device.CUDA, block_s=0.02)
    with on_cuda(artifact, streams=4) as runner:
        load = concurrent_load(runner, zoo.SAMPLES["conv"].feed({"batch": 8}), 4, settings, artifact="m", batch=8)
    assert (load.streams, load.calls >= 4) == (4, True)
    assert torch.cuda.is_available()
