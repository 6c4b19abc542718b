"""ONNX Runtime, on the CPU or on CUDA; the provider that really runs the model is compared with the one asked for."""

import contextlib
import functools
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from optkit import onnx_file
from optkit.artifact import Precision
from optkit.errors import RunnerError, first_line
from optkit.runners.base import Device, Runner
from optkit.tensors import Feed

_PROVIDERS = {Device.CPU: "CPUExecutionProvider", Device.CUDA: "CUDAExecutionProvider"}


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
                providers=[wanted],
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

    def _free(self) -> None:
        del self._session, self._bound

    def _infer(self, feed: Feed) -> dict[str, np.ndarray]:
        arrays = self._session.run(self._names, dict(feed))
        return dict(zip(self._names, arrays, strict=True))

    def _bind(self, feed: Feed) -> Callable[[], object]:
        session, binding = self._session, self._session.io_binding()
        if self.device is Device.CUDA:
            import onnxruntime

            placed = {n: onnxruntime.OrtValue.ortvalue_from_numpy(a, "cuda", 0) for n, a in feed.items()}
            for name, value in placed.items():
                binding.bind_ortvalue_input(name, value)
        else:
            placed = {name: np.asarray(array, order="C") for name, array in feed.items()}
            for name, array in placed.items():
                binding.bind_cpu_input(name, array)
        for name in self._names:
            binding.bind_output(name, str(self.device))
        self._bound.append((binding, placed))  # what the call below reads must outlive it

        # The public run_with_iobinding wraps this one in a check and a try, 0.8 us a call; a tiny model takes 2 us.
        run = functools.partial(session._sess.run_with_iobinding, binding._iobinding, None)
        if self.device is Device.CPU:
            return run

        def run_and_wait() -> None:
            run()
            binding.synchronize_outputs()

        return run_and_wait
