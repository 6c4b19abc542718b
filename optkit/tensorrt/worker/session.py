"""An engine that is loaded once and then answers requests."""

from __future__ import annotations

import sys

from .execution import ExecutionSlot
from .log import first_error, make_logger
from .protocol import Channel, FaultError, Json
from .runtimes import find_gpu, load_runtime, title
from .tensors import describe, read_feed, write_outputs


class Session:
    """An engine on the primary context of the GPU, which torch uses too, with one execution slot for each stream."""

    def __init__(self, job: Json, channel: Channel) -> None:
        """Load the engine.

        Raises:
            FaultError: no GPU, no pycuda, or TensorRT refuses the engine.
        """
        gpu, no_gpu = find_gpu()
        if gpu is None:
            raise FaultError(f"an engine needs a GPU: {no_gpu}")
        _, trt = load_runtime(job["runtime"], gpu, no_gpu)
        try:
            import pycuda.driver as cuda
        except ImportError as e:
            raise FaultError(f"pycuda is not installed for {sys.executable} ({e}). Run: pip install pycuda") from e
        cuda.init()
        self.trt, self.cuda = trt, cuda
        self._cuda_context = cuda.Device(0).retain_primary_context()
        self._cuda_context.push()
        log: list[str] = []
        self._runtime = trt.Runtime(make_logger(trt, channel, log))
        if job["version_compatible"] and hasattr(self._runtime, "engine_host_code_allowed"):
            self._runtime.engine_host_code_allowed = True
        with open(job["plan"], "rb") as file:
            self.engine = self._runtime.deserialize_cuda_engine(file.read())
        if self.engine is None:
            raise FaultError(f"{title(trt)} cannot load the engine: {first_error(log)}")
        self.slots = [ExecutionSlot(trt, cuda, self.engine) for _ in range(job["streams"])]
        self._gpu = gpu

    def describe(self) -> Json:
        """Return the facts of the engine."""
        engine, slot = self.engine, self.slots[0]
        memory = engine.device_memory_size_v2 if hasattr(engine, "device_memory_size_v2") else engine.device_memory_size
        return {
            "version": self.trt.__version__,
            "gpu": self._gpu,
            "inputs": [self._describe_tensor(name) for name in slot.inputs],
            "outputs": [self._describe_tensor(name) for name in slot.outputs],
            "profiles": [
                {name: [list(s) for s in engine.get_tensor_profile_shape(name, i)] for name in slot.inputs}
                for i in range(engine.num_optimization_profiles)
            ],
            "layers": engine.num_layers,
            "device_memory_bytes": memory,
        }

    def _describe_tensor(self, name: str) -> Json:
        return describe(name, self.engine.get_tensor_dtype(name), self.engine.get_tensor_shape(name))

    def infer(self, request: Json) -> Json:
        """Run one inference; the arrays are .npy files in the folder of the request."""
        slot = self.slots[0]
        slot.place(read_feed(request))
        slot.copy_in()
        slot.enqueue()
        slot.copy_out()
        slot.stream.synchronize()
        write_outputs(request, slot.results())
        return {"outputs": list(slot.outputs)}

    def close(self) -> None:
        """Free the engine and restore the GPU context."""
        for slot in self.slots:
            slot.free()
        self.slots.clear()
        self.engine = self._runtime = None
        self._cuda_context.pop()
