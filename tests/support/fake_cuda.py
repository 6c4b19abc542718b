"""A stand-in for torch.cuda and for ONNX Runtime's CUDA sessions, which refuses what CUDA refuses. Everything computes on the CPU.

- The time between two events is refused until both are over, and they are over only once somebody waited for them.
- A copy that does not wait needs pinned memory on the host's side, and is not over before somebody waited either.
- A capture without calls on another stream before it fails, and so does waiting during it.
- A graph knows its buffers by their addresses: another address under the same graph is refused.
"""

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from tests.support.zoo import Make

WORK_MS = {"copy in": 2.0, "call": 5.0, "copy out": 3.0}


class FakeStream:
    """Work goes onto it and takes time that a clock of its own counts."""

    def __init__(self, gpu: "FakeGpu") -> None:
        self.gpu = gpu
        self.put_ms = 0.0  # when all that was put on it will be over
        self.over_ms = 0.0  # up to when somebody waited
        gpu.streams.append(self)

    @property
    def cuda_stream(self) -> int:
        return 1000 + self.gpu.streams.index(self)

    def wait_stream(self, other: "FakeStream") -> None:
        self.gpu.log.append(f"{self.cuda_stream} waits for {other.cuda_stream}")

    def synchronize(self) -> None:
        self.gpu.refuse_while_capturing()
        self.over_ms = self.put_ms
        self.gpu.log.append("wait")


class FakeEvent:
    def __init__(self, gpu: "FakeGpu", enable_timing: bool = False) -> None:
        self.gpu, self.timing = gpu, enable_timing
        self.stream: FakeStream | None = None

    def record(self, stream: FakeStream) -> None:
        self.stream, self.at_ms = stream, stream.put_ms
        self.gpu.log.append("event")

    def synchronize(self) -> None:
        assert self.stream is not None
        self.stream.over_ms = max(self.stream.over_ms, self.at_ms)
        self.gpu.log.append("wait")

    def elapsed_time(self, end: "FakeEvent") -> float:
        for event in (self, end):
            if event.stream is None or not event.timing:
                raise RuntimeError("Both events must be recorded with timing")
            if event.at_ms > event.stream.over_ms:
                raise RuntimeError("Both events must be completed before calculating elapsed time.")
        return end.at_ms - self.at_ms


class FakeGraph:
    def __init__(self, gpu: "FakeGpu") -> None:
        self.gpu = gpu
        self.whole = False

    def replay(self) -> None:
        if not self.whole:
            raise RuntimeError("replay of a graph that was not captured")
        self.gpu.work("replay", WORK_MS["call"])


class FakeGpu:
    """What torch.cuda is replaced by, and a log of what happened in order."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.streams: list[FakeStream] = []
        self.default = FakeStream(self)
        self.now_on = [self.default]
        self.capturing = False
        self.warm = False
        self.addresses: dict[str, tuple[int, ...]] = {}

    def work(self, what: str, ms: float, stream: FakeStream | None = None) -> None:
        (stream or self.now_on[-1]).put_ms += ms
        self.log.append(what)

    def refuse_while_capturing(self) -> None:
        if self.capturing:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    def synchronize(self) -> None:
        self.refuse_while_capturing()
        for stream in self.streams:
            stream.over_ms = stream.put_ms
        self.log.append("wait for all")

    @contextlib.contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        self.now_on.append(stream)
        try:
            yield
        finally:
            self.now_on.pop()

    @contextlib.contextmanager
    def graph(self, graph: FakeGraph) -> Iterator[None]:
        if not self.warm:
            raise RuntimeError("CUDA error: cuBLAS allocates in its first call, which a capture refuses")
        self.log.append("capture")
        self.capturing = True
        try:
            yield
        finally:
            self.capturing = False
        graph.whole = True

    def module(self) -> SimpleNamespace:
        return SimpleNamespace(
            Event=lambda enable_timing=False: FakeEvent(self, enable_timing),
            Stream=lambda: FakeStream(self),
            CUDAGraph=lambda: FakeGraph(self),
            graph=self.graph,
            stream=self.stream,
            synchronize=self.synchronize,
            current_stream=lambda: self.now_on[-1],
            is_available=lambda: True,
            empty_cache=lambda: None,
        )


class Doubling(torch.nn.Module):
    """A model whose call is work on the stand-in; a call on a side stream warms it up."""

    def __init__(self, gpu: FakeGpu, waits: bool = False) -> None:
        super().__init__()
        self.gpu, self.waits = gpu, waits

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        assert torch.is_inference_mode_enabled()
        if self.waits:
            self.gpu.refuse_while_capturing()
        if not self.gpu.capturing:
            self.gpu.warm = self.gpu.warm or self.gpu.now_on[-1] is not self.gpu.default
            self.gpu.work("call", WORK_MS["call"])
        return input * 2


class FakeOrtValue:
    """An array at an address on the GPU."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    @classmethod
    def ortvalue_from_numpy(cls, array: np.ndarray, device: str, device_id: int) -> "FakeOrtValue":
        assert (device, device_id) == ("cuda", 0)
        return cls(array.copy())


class FakeBinding:
    """Names to addresses; an output without one gets a new one in each run."""

    def __init__(self) -> None:
        self.inputs: dict[str, int] = {}
        self.outputs: dict[str, int | None] = {}
        self.values: dict[str, FakeOrtValue] = {}
        self._iobinding = self

    def bind_ortvalue_input(self, name: str, value: FakeOrtValue) -> None:
        self.inputs[name] = id(value)

    def bind_ortvalue_output(self, name: str, value: FakeOrtValue) -> None:
        self.outputs[name] = id(value)

    def bind_input(self, name: str, device: str, device_id: int, dtype: Any, shape: list[int], address: int) -> None:
        assert (device, device_id) == ("cuda", 0)
        self.inputs[name] = address

    def bind_output(
        self,
        name: str,
        device: str,
        device_id: int = 0,
        dtype: Any = None,
        shape: Any = None,
        address: int | None = None,
    ) -> None:
        assert device == "cuda"
        self.outputs[name] = address

    def get_outputs(self) -> list[FakeOrtValue]:
        return [self.values[name] for name in self.outputs]


class FakeSession:
    """A session on the CUDA provider."""

    def __init__(self, gpu: FakeGpu, real: Any, options: dict[str, str]) -> None:
        self.gpu, self.real, self.options = gpu, real, options
        self._sess = self
        streams = [s for s in gpu.streams if str(s.cuda_stream) == options.get("user_compute_stream")]
        self.stream = streams[0] if streams else FakeStream(gpu)
        self.graphs: dict[str, tuple[object, ...]] = {}

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider"]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        node = SimpleNamespace
        cpu = [node(op_type="Shape"), node(op_type="Shape"), node(op_type="MatMulInteger")]
        parts = {"CPUExecutionProvider": cpu, "CUDAExecutionProvider": [node(op_type="Conv")]}
        return [node(ep_name=name, get_nodes=lambda nodes=nodes: nodes) for name, nodes in parts.items()]

    def get_outputs(self) -> Any:
        return self.real.get_outputs()

    def run(self, names: list[str], feed: Any, options: Any = None) -> Any:
        if self.options.get("enable_cuda_graph") == "1":
            assert options.get_run_config_entry("gpu_graph_id") == "-1", "session.run has no buffers that stay"
        return self.real.run(names, feed)

    def io_binding(self) -> FakeBinding:
        binding = FakeBinding()
        binding.synchronize_outputs = self.stream.synchronize  # type: ignore[attr-defined]
        return binding

    def run_with_iobinding(self, binding: FakeBinding, options: Any) -> None:
        entries = self._entries(options)
        graph = entries.get("gpu_graph_id", "0")
        what = "call"
        if self.options.get("enable_cuda_graph") == "1" and graph != "-1":
            if None in binding.outputs.values():
                raise RuntimeError("a graph needs outputs that are allocated before")
            buffers = (*binding.inputs.items(), *binding.outputs.items())
            what = "replay" if graph in self.graphs else "capture"
            if self.graphs.setdefault(graph, buffers) != buffers:
                raise RuntimeError(f"graph {graph} was captured with other buffers")
        for name, address in binding.outputs.items():
            if address is None:
                binding.values[name] = FakeOrtValue(np.zeros(1))
        self.gpu.work(what, WORK_MS["call"], self.stream)
        if entries.get("disable_synchronize_execution_providers") != "1":
            self.stream.over_ms = self.stream.put_ms

    @staticmethod
    def _entries(options: Any) -> dict[str, str]:
        found = {}
        for key in ("gpu_graph_id", "disable_synchronize_execution_providers"):
            with contextlib.suppress(Exception):  # it raises for what was not set
                found[key] = options.get_run_config_entry(key)
        return found


@pytest.fixture
def gpu(make: Make, monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """Put the stand-in where torch.cuda is, and CUDA's tensors onto the CPU."""
    make("linear")  # builds modules with torch as it is
    fake = FakeGpu()
    real_to, real_copy, real_empty_like = torch.Tensor.to, torch.Tensor.copy_, torch.empty_like
    pinned: set[int] = set()

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.add(tensor.data_ptr())
        return tensor

    def to(tensor: torch.Tensor, where: Any, *arguments: Any, **more: Any) -> torch.Tensor:
        return real_to(tensor, "cpu" if str(where) == "cuda" else where, *arguments, **more | {"copy": True})

    def copy(tensor: torch.Tensor, other: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        if non_blocking:
            out = tensor.data_ptr() in pinned
            assert out or other.data_ptr() in pinned, "a copy from pageable memory waits"
            fake.work("copy out" if out else "copy in", WORK_MS["copy out" if out else "copy in"])
        return real_copy(tensor, other)

    monkeypatch.setattr(torch, "cuda", fake.module())
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.Tensor, "copy_", copy)
    monkeypatch.setattr(torch, "empty_like", lambda tensor, device: real_empty_like(tensor))
    return fake


@pytest.fixture
def cuda_sessions(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> list[FakeSession]:
    """Put the stand-in where ONNX Runtime's sessions are; return those that were opened."""
    real: Callable[..., Any] = onnxruntime.InferenceSession
    opened: list[FakeSession] = []

    def session(path: Any, options: Any, providers: Any, **more: Any) -> FakeSession:
        ((provider, asked),) = providers
        assert provider == "CUDAExecutionProvider"
        opened.append(FakeSession(gpu, real(path, options, providers=["CPUExecutionProvider"], **more), asked))
        return opened[-1]

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "OrtValue", FakeOrtValue)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    return opened
