"""One inference captured as a CUDA graph. pycuda has no graphs, so the functions of the driver are called directly."""

from __future__ import annotations

import ctypes
from typing import Any, Callable

from .protocol import FaultError
from .runtimes import load_libcuda


class CudaGraph:
    """The work of one call on a stream, captured once and then replayed."""

    def __init__(self, stream: int, enqueue: Callable[[], None]) -> None:
        """Record the call.

        Raises:
            FaultError: the driver reports an error.
        """
        self._driver = load_libcuda()
        self._stream = ctypes.c_void_p(stream)
        graph, self._executable = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", self._stream, 1)  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        try:
            enqueue()
        finally:
            self._call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        self._call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), graph, ctypes.c_ulonglong(0))
        self._call("cuGraphDestroy", graph)

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code:
            raise FaultError(f"CUDA graph: {name} gives error {code}")

    def launch(self) -> None:
        """Enqueue one replay on the stream."""
        self._call("cuGraphLaunch", self._executable, self._stream)

    def free(self) -> None:
        """Free the graph."""
        self._call("cuGraphExecDestroy", self._executable)
