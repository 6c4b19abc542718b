"""ONNX Runtime, on the CPU or on CUDA; a fallback to another provider is an error."""

import contextlib
import functools
import io
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from optkit import onnx_file
from optkit.artifact import Precision
from optkit.artifact.findings import CallParts
from optkit.artifact.tensors import Feed
from optkit.errors import RunnerError, first_line
from optkit.runners.base import Device, Placement, Runner
from optkit.runners.cuda import call_parts, pinned

_PROVIDERS = {Device.CPU: "CPUExecutionProvider", Device.CUDA: "CUDAExecutionProvider"}
# Keys of onnxruntime_run_options_config_keys.h and of the CUDA provider's documentation.
_GRAPH_ID = "gpu_graph_id"
_NO_GRAPH = "-1"
RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"
_NO_WAIT = "disable_synchronize_execution_providers"


class OnnxRuntimeRunner(Runner):
    """One session on one provider. On CUDA, ONNX Runtime assigns operators without a CUDA kernel to the CPU."""

    @property
    def provider(self) -> str:
        """The first provider of the session."""
        return str(self._session.get_providers()[0])

    def _load(self) -> None:
        import onnxruntime

        wanted = _PROVIDERS[self.device]
        if self.device is Device.CUDA:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints the libraries that it does not find
                onnxruntime.preload_dlls()  # finds the CUDA libraries of torch
            onnxruntime.set_default_logger_severity(4)  # the error below reports missing libraries
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        if self.threads:
            options.intra_op_num_threads = self.threads
        if self.device is Device.CUDA:
            options.add_session_config_entry(RECORD_PLACEMENT, "1")
        int8 = self.artifact.precision is Precision.INT8
        # Models for TensorRT are checked with 32-bit accumulation, because TensorRT does not saturate. x86 processors without VNNI add
        # pairs of 8-bit products in 16 bits, which can overflow. Models for CPUs have 7-bit weights there instead.
        if int8 and onnx_file.has_float_weights_behind_qdq(self.artifact.path):
            options.add_session_config_entry("session.x64quantprecision", "1")
        # On CPUs this optimizer breaks FP16 convolutions between Q/DQ nodes: it computes the integers of a bias in FP16.
        mixed = int8 and onnx_file.has_fp16_weights(self.artifact.path)
        try:
            self._session: Any = onnxruntime.InferenceSession(
                self.artifact.path,
                options,
                providers=[(wanted, self._provider_options())],
                disabled_optimizers=["WeightBiasQuantization"] if mixed else None,
            )
        except Exception as e:  # onnxruntime's exceptions share no base but Exception
            raise RunnerError(f"{self.artifact.path}: ONNX Runtime cannot load it ({first_line(e)})") from e
        found = self._session.get_providers()
        if found[0] != wanted:
            raise RunnerError(
                f"device {str(self.device)!r}: ONNX Runtime fell back to {found[0]}; expected {wanted}. "
                f"Use --device cpu, or install onnxruntime-gpu with its CUDA libraries on a machine with a GPU."
            )
        names = [spec.name for spec in self.artifact.outputs]
        if [o.name for o in self._session.get_outputs()] != names:
            written = ", ".join(o.name for o in self._session.get_outputs())
            raise RunnerError(f"{self.artifact.path}: has outputs {written}; expected {', '.join(names)}")
        self._names = names
        self._bound: list[Any] = []
        self._graphs = 0  # ids used so far: each binding has its own graph

    def _provider_options(self) -> dict[str, str]:
        """Return the options of the CUDA provider: no TF32, a stream shared with torch's events, and CUDA graphs if requested.

        With several callers the session gets no stream; ONNX Runtime then creates one for each caller.
        """
        self._stream: Any = None
        if self.device is Device.CPU:
            return {}
        import torch

        options = {"use_tf32": "0", **({"enable_cuda_graph": "1"} if self.cuda_graph else {})}
        if (
            self.streams == 1 and torch.cuda.is_available()
        ):  # a CPU build of torch may be installed beside onnxruntime-gpu
            self._stream = torch.cuda.Stream()
            options["user_compute_stream"] = str(self._stream.cuda_stream)
        return options

    def _free(self) -> None:
        del self._session, self._bound, self._stream

    def _infer(self, feed: Feed) -> dict[str, np.ndarray]:
        arrays = self._session.run(self._names, dict(feed), self._without_graph())
        return dict(zip(self._names, arrays, strict=True))

    def placement(self) -> Placement | None:
        """Return the nodes on the CPU: shape computations, which ONNX Runtime keeps there, and operators without a CUDA kernel."""
        return None if self.device is Device.CPU else placement_of(self._session)

    def why_not_concurrent(self) -> str | None:
        """Return a reason with CUDA graphs: ONNX Runtime's documentation allows replays from one thread only."""
        return "ONNX Runtime replays CUDA graphs from one thread only" if self.cuda_graph else None

    def _bind(self, feed: Feed) -> Callable[[], object]:
        binding = self._session.io_binding()
        placed = {name: np.asarray(array, order="C") for name, array in feed.items()}
        self._bound.append((binding, placed))  # the call below needs these arrays
        if self.device is Device.CUDA:
            return self._bind_cuda(binding, placed)
        for name, array in placed.items():
            binding.bind_cpu_input(name, array)
        for name in self._names:
            binding.bind_output(name, "cpu")
        return self._caller(binding, None)

    def _caller(self, binding: Any, options: Any) -> Callable[[], object]:
        # The public run_with_iobinding adds a check and a try, 0.8 us a call; a tiny model takes 2 us.
        return functools.partial(self._session._sess.run_with_iobinding, binding._iobinding, options)

    def _bind_cuda(self, binding: Any, feed: Feed) -> Callable[[], None]:
        """Bind permanent buffers on the GPU, because a CUDA graph uses their addresses."""
        import onnxruntime

        placed = {name: onnxruntime.OrtValue.ortvalue_from_numpy(a, "cuda", 0) for name, a in feed.items()}
        self._bound.append(placed)
        for name, value in placed.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._names:
            binding.bind_output(name, "cuda")
        self._caller(binding, self._without_graph())()  # ONNX Runtime allocates outputs of the right size
        outputs = binding.get_outputs()
        for name, value in zip(self._names, outputs, strict=True):
            binding.bind_ortvalue_output(name, value)
        self._bound.append(outputs)
        run = self._caller(binding, self._with_graph())
        self._capture(run)

        def run_and_wait() -> None:
            run()
            binding.synchronize_outputs()

        return run_and_wait

    def _capture(self, run: Callable[[], object]) -> None:
        """Capture the graph of a binding: ONNX Runtime captures in the first run with a new id."""
        if not self.cuda_graph:
            return
        try:
            run()
        except Exception as e:  # onnxruntime's exceptions share no base but Exception
            raise RunnerError(
                f"{self.title}: cannot be captured as a CUDA graph ({first_line(e)}). Measure it without a CUDA graph."
            ) from e

    def _with_graph(self, *, wait: bool = True) -> Any:
        """Return the run options for one binding, with a new graph id if CUDA graphs are used."""
        import onnxruntime

        if wait and not self.cuda_graph:
            return None
        options = onnxruntime.RunOptions()
        if self.cuda_graph:
            self._graphs += 1
            options.add_run_config_entry(_GRAPH_ID, str(self._graphs))
        if not wait:
            options.add_run_config_entry(_NO_WAIT, "1")
        return options

    def _without_graph(self) -> Any:
        """Return the options of a run without a CUDA graph in a session with CUDA graphs."""
        if not self.cuda_graph:
            return None
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.add_run_config_entry(_GRAPH_ID, _NO_GRAPH)
        return options

    def parts(self, feed: Feed) -> tuple[CallParts, ...]:
        """Return the parts of a call by events on the session's stream; empty on a CPU, and without a CUDA build of torch.

        Before onnxruntime#28686 a replay waits for its end, so its enqueue time is the time of the whole call.
        """
        if self._stream is None:
            return ()
        import torch

        self._check(feed)
        on_host = {n: torch.from_numpy(np.array(a)).pin_memory() for n, a in feed.items()}
        placed = {name: tensor.to("cuda") for name, tensor in on_host.items()}
        binding = self._session.io_binding()
        for name, tensor in placed.items():
            binding.bind_input(name, "cuda", 0, feed[name].dtype, list(tensor.shape), tensor.data_ptr())
        outputs = [torch.from_numpy(array).to("cuda") for array in self._infer(feed).values()]
        for spec, tensor in zip(self.artifact.outputs, outputs, strict=True):
            binding.bind_output(spec.name, "cuda", 0, np.dtype(spec.dtype.numpy), list(tensor.shape), tensor.data_ptr())
        torch.cuda.synchronize()  # the session's stream does not wait for the copies
        run = self._caller(binding, self._with_graph(wait=False))
        run()  # the first run allocates or captures
        back = [(tensor, pinned(tensor)) for tensor in outputs]

        def copy_in() -> None:
            with torch.cuda.stream(self._stream):
                for name, tensor in placed.items():
                    tensor.copy_(on_host[name], non_blocking=True)

        def copy_out() -> None:
            with torch.cuda.stream(self._stream):
                for tensor, host in back:
                    host.copy_(tensor, non_blocking=True)

        return (call_parts(self._stream, copy_in, run, copy_out),)


def placement_of(session: Any) -> Placement:
    """Return the nodes on the CPU of a session that was created with `RECORD_PLACEMENT`."""
    parts = [(part.ep_name, part.get_nodes()) for part in session.get_provider_graph_assignment_info()]
    on_cpu = Counter(node.op_type for name, nodes in parts if name == _PROVIDERS[Device.CPU] for node in nodes)
    return Placement(dict(on_cpu), sum(len(nodes) for _, nodes in parts))
