"""One execution context of an engine with its stream and buffers: it copies inputs, enqueues an inference and copies outputs."""

from __future__ import annotations

from typing import Any, Sequence

from .cuda_graph import CudaGraph
from .protocol import FaultError, Json
from .tensors import cast_exactly, fits, volume


class ExecutionSlot:
    """One execution context with a stream and its own buffers, allocated once for the largest shapes of all profiles."""

    def __init__(self, trt: Any, cuda: Any, engine: Any) -> None:
        self._trt, self._cuda, self._engine = trt, cuda, engine
        self.context = engine.create_execution_context()
        if self.context is None:
            raise FaultError("TensorRT could not make an execution context; the GPU may be out of memory")
        self.stream = cuda.Stream()
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        modes = trt.TensorIOMode
        self.inputs = [name for name in names if engine.get_tensor_mode(name) == modes.INPUT]
        self.outputs = [name for name in names if engine.get_tensor_mode(name) == modes.OUTPUT]
        self._memory: Json = {}
        self._pinned: Json = {}
        self._allocators: Json = {}
        self._profile = 0
        for name in self.inputs:
            largest = [max(volume(shapes[2]), 1) for shapes in self._ranges(name)]
            self._allocate(name, max(largest) * self._itemsize(name))
        for name in self.outputs:
            self._allocate_output(name)

    def _ranges(self, name: str) -> list[list[tuple[int, ...]]]:
        """Return (min, opt, max) of an input for every profile."""
        count = self._engine.num_optimization_profiles
        return [[tuple(s) for s in self._engine.get_tensor_profile_shape(name, i)] for i in range(count)]

    def _itemsize(self, name: str) -> int:
        return int(self._dtype(name).itemsize)

    def _dtype(self, name: str) -> Any:
        """Return the numpy dtype of a tensor."""
        import numpy as np

        return np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))

    def _allocate(self, name: str, size: int) -> None:
        self._memory[name] = self._cuda.mem_alloc(max(size, 1))
        if not self.context.set_tensor_address(name, int(self._memory[name])):
            raise FaultError(f"tensor {name!r}: TensorRT refused its address")

    def _allocate_output(self, name: str) -> None:
        """Allocate an output for the largest profile, or let TensorRT allocate it where its size depends on values."""
        largest = 0
        for index in range(self._engine.num_optimization_profiles):
            self._use_profile(index)
            for entry in self.inputs:
                self._set_shape(entry, self._ranges(entry)[index][2])
            shape = tuple(self.context.get_tensor_shape(name))
            if any(d < 0 for d in shape):
                self._allocators[name] = _make_output_allocator(self._trt, self._cuda)
                self.context.set_output_allocator(name, self._allocators[name])
                return
            largest = max(largest, volume(shape))
        self._allocate(name, largest * self._itemsize(name))

    def _use_profile(self, index: int) -> None:
        """Switch to a profile; switching is asynchronous and must be done before shapes are set."""
        if index != self._profile:
            if not self.context.set_optimization_profile_async(index, self.stream.handle):
                raise FaultError(f"TensorRT could not switch to profile {index}")
            self.stream.synchronize()
            self._profile = index

    def _set_shape(self, name: str, shape: Sequence[int]) -> None:
        """Set the shape of an input in the current profile."""
        if not self.context.set_input_shape(name, tuple(shape)):
            raise FaultError(f"input {name!r}: the engine refuses the shape {list(shape)}")

    def place(self, feed: Json) -> None:
        """Choose a profile for the shapes, and copy the inputs into pinned memory.

        Raises:
            FaultError: no profile fits the shapes.
        """
        import numpy as np

        shapes = {name: feed[name].shape for name in self.inputs}
        self._use_profile(self._fitting_profile(shapes))
        for name in self.inputs:
            self._set_shape(name, shapes[name])
            self._pinned[name] = self._cuda.pagelocked_empty(shapes[name], self._dtype(name))
            np.copyto(self._pinned[name], cast_exactly(name, feed[name], self._dtype(name)))
        left = self.context.infer_shapes()
        if left:
            raise FaultError("TensorRT needs the shape of {}".format(", ".join(left)))
        for name in self.outputs:
            if name not in self._allocators:
                shape = tuple(self.context.get_tensor_shape(name))
                self._pinned[name] = self._cuda.pagelocked_empty(shape, self._dtype(name))

    def _fitting_profile(self, shapes: Json) -> int:
        """Return the first profile that fits the shapes; the current profile is tried first."""
        count = self._engine.num_optimization_profiles
        for index in [self._profile, *range(count)]:
            ranges = {name: self._ranges(name)[index] for name in self.inputs}
            if all(fits(shapes[name], ranges[name][0], ranges[name][2]) for name in self.inputs):
                return int(index)
        built_for = "; ".join(
            f"{name} from {list(self._ranges(name)[i][0])} to {list(self._ranges(name)[i][2])}"
            for i in range(count)
            for name in self.inputs
        )
        given = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise FaultError(f"no profile of the engine fits {given}; it was built for {built_for}")

    def copy_in(self) -> None:
        """Copy the inputs to the GPU, on the stream."""
        for name in self.inputs:
            self._cuda.memcpy_htod_async(self._memory[name], self._pinned[name], self.stream)

    def enqueue(self) -> None:
        """Enqueue one inference on the stream."""
        if not self.context.execute_async_v3(self.stream.handle):
            raise FaultError("TensorRT failed to run the engine")

    def copy_out(self) -> None:
        """Copy the outputs of known size to the host, on the stream."""
        for name in self.outputs:
            if name not in self._allocators:
                self._cuda.memcpy_dtoh_async(self._pinned[name], self._memory[name], self.stream)

    def results(self) -> Json:
        """Return the outputs after the stream has finished; outputs whose size depends on values are copied now."""
        import numpy as np

        found = {}
        for name in self.outputs:
            allocator = self._allocators.get(name)
            if allocator is None:
                found[name] = np.array(self._pinned[name])
                continue
            found[name] = np.empty(allocator.shape, self._dtype(name))
            if found[name].size:
                self._cuda.memcpy_dtoh(found[name], allocator.address)
        return found

    def capture(self) -> CudaGraph:
        """Record one inference as a CUDA graph.

        Raises:
            FaultError: the engine or the driver does not support it.
        """
        if self._allocators:
            raise FaultError(
                "a CUDA graph cannot have an output whose size depends on values: {}".format(
                    ", ".join(self._allocators)
                )
            )
        self.enqueue()  # the first call after a change of shape may do work that must not be captured
        self.stream.synchronize()
        return CudaGraph(self.stream.handle, self.enqueue)

    def free(self) -> None:
        """Free the memory and the context."""
        for memory in self._memory.values():
            memory.free()
        self._pinned.clear()
        self.context = None


def _make_output_allocator(trt: Any, cuda: Any) -> Any:
    """Return an allocator for an output whose size depends on values; its memory only grows."""

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self._memory: Any = None
            self._size = 0
            self.shape: tuple[int, ...] = ()

        @property
        def address(self) -> int:
            return int(self._memory)

        def reallocate_output(self, tensor_name: str, memory: int, size: int, alignment: int) -> int:
            if size > self._size or self._memory is None:
                if self._memory is not None:
                    self._memory.free()
                self._memory = cuda.mem_alloc(max(size, 1))  # 256-byte aligned, as cuMemAlloc gives it
                self._size = size
            return int(self._memory)

        def reallocate_output_async(self, tensor_name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            return self.reallocate_output(tensor_name, memory, size, alignment)

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            self.shape = tuple(shape)

    return Allocator()
