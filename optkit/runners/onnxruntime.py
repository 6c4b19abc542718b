"""ONNX Runtime, on the CPU or on CUDA; the provider that really runs the model is compared with the one asked for."""

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
    """One session on one provider. On CUDA, operators without a CUDA form run on the CPU, as ONNX Runtime assigns them."""

    @property
    def provider(self) -> str:
        """The first provider of the session."""
        return str(self._session.get_providers()[0])

    def _load(self) -> None:
        import onnxruntime

        wanted = _PROVIDERS[self.device]
        if self.device is Device.CUDA:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
                onnxruntime.preload_dlls()  # finds the CUDA libraries that torch brought
            onnxruntime.set_default_logger_severity(4)  # what it logs of missing ones is told by the error below
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        if self.threads:
            options.intra_op_num_threads = self.threads
        if self.device is Device.CUDA:
            options.add_session_config_entry(RECORD_PLACEMENT, "1")
        int8 = self.artifact.precision is Precision.INT8
        # TensorRT adds up in 32 bits. x86 processors without VNNI add pairs of 8-bit products in 16 bits, which overflow; this session
        # computes as TensorRT will. What is made for CPUs has 7-bit weights there, and runs as it will where it is served.
        if int8 and onnx_file.has_float_weights_behind_qdq(self.artifact.path):
            options.add_session_config_entry("session.x64quantprecision", "1")
        # Of FP16 convolutions between Q/DQ nodes this optimizer makes garbage on CPUs: it computes the integers of a bias in FP16.
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
                f"device {str(self.device)!r}: asked ONNX Runtime for {wanted}, and it fell back to {found[0]}. "
                f"Use --device cpu, or install onnxruntime-gpu with its CUDA libraries on a machine with a GPU."
            )
        names = [spec.name for spec in self.artifact.outputs]
        if [o.name for o in self._session.get_outputs()] != names:
            written = ", ".join(o.name for o in self._session.get_outputs())
            raise RunnerError(f"{self.artifact.path}: has outputs {written}; expected {', '.join(names)}")
        self._names = names
        self._bound: list[Any] = []
        self._graphs = 0  # ids given so far: each binding has a graph of its own

    def _provider_options(self) -> dict[str, str]:
        """Return the options of the CUDA provider: one stream that torch's events can lie on, and graphs where they are asked for.

        Products of FP32 are computed in FP32, where ONNX Runtime takes TF32 by itself.
        With several callers it takes a stream of its own for each of them, as it does for those who give it none.
        """
        self._stream: Any = None
        if self.device is Device.CPU:
            return {}
        import torch

        options = {"use_tf32": "0", **({"enable_cuda_graph": "1"} if self.cuda_graph else {})}
        if self.streams == 1 and torch.cuda.is_available():  # torch may be one for CPUs, beside onnxruntime-gpu
            self._stream = torch.cuda.Stream()
            options["user_compute_stream"] = str(self._stream.cuda_stream)
        return options

    def _free(self) -> None:
        del self._session, self._bound, self._stream

    def _infer(self, feed: Feed) -> dict[str, np.ndarray]:
        arrays = self._session.run(self._names, dict(feed), self._without_graph())
        return dict(zip(self._names, arrays, strict=True))

    def placement(self) -> Placement | None:
        """Return what ONNX Runtime left to the CPU: shapes that it computes there on purpose, and operators without a CUDA form."""
        return None if self.device is Device.CPU else placement_of(self._session)

    def several_callers_obstacle(self) -> str | None:
        """Return that a session replays its graphs from one thread only, as its documentation says."""
        return "ONNX Runtime replays CUDA graphs from one thread only" if self.cuda_graph else None

    def _bind(self, feed: Feed) -> Callable[[], object]:
        binding = self._session.io_binding()
        placed = {name: np.asarray(array, order="C") for name, array in feed.items()}
        self._bound.append((binding, placed))  # what the call below reads must outlive it
        if self.device is Device.CUDA:
            return self._bind_cuda(binding, placed)
        for name, array in placed.items():
            binding.bind_cpu_input(name, array)
        for name in self._names:
            binding.bind_output(name, "cpu")
        return self._caller(binding, None)

    def _caller(self, binding: Any, options: Any) -> Callable[[], object]:
        # The public run_with_iobinding wraps this one in a check and a try, 0.8 us a call; a tiny model takes 2 us.
        return functools.partial(self._session._sess.run_with_iobinding, binding._iobinding, options)

    def _bind_cuda(self, binding: Any, feed: Feed) -> Callable[[], None]:
        """Bind buffers on the GPU that stay: a graph knows them by their addresses."""
        import onnxruntime

        placed = {name: onnxruntime.OrtValue.ortvalue_from_numpy(a, "cuda", 0) for name, a in feed.items()}
        self._bound.append(placed)
        for name, value in placed.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._names:
            binding.bind_output(name, "cuda")
        self._caller(binding, self._without_graph())()  # so that ONNX Runtime makes outputs of the right size
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
        """Let ONNX Runtime capture the graph of a binding, which it does in the first run with a new id."""
        if not self.cuda_graph:
            return
        try:
            run()
        except Exception as e:  # onnxruntime's exceptions share no base but Exception
            raise RunnerError(
                f"{self.title}: cannot be captured as a CUDA graph ({first_line(e)}). Measure it without one."
            ) from e

    def _with_graph(self, *, wait: bool = True) -> Any:
        """Return the options of runs that share a graph of their own, where graphs are asked for."""
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
        """Return the options of a run that is no replay, though the session has graphs."""
        if not self.cuda_graph:
            return None
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.add_run_config_entry(_GRAPH_ID, _NO_GRAPH)
        return options

    def parts(self, feed: Feed) -> tuple[CallParts, ...]:
        """Return the parts of a call by events on the session's stream; nothing on a CPU, and without a torch that knows the GPU.

        Before onnxruntime#28686 a replay of a graph waits for its end, and its time to enqueue is that of the call.
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
        run()  # the first one allocates, or captures
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
    """Return which nodes a session has on the CPU, of all that it has; it was made with `RECORD_PLACEMENT`."""
    parts = [(part.ep_name, part.get_nodes()) for part in session.get_provider_graph_assignment_info()]
    on_cpu = Counter(node.op_type for name, nodes in parts if name == _PROVIDERS[Device.CPU] for node in nodes)
    return Placement(dict(on_cpu), sum(len(nodes) for _, nodes in parts))
