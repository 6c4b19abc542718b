"""On the path of a stand-in only: gives the process an NVIDIA driver that knows one GPU, and CUDA graphs on the stand-in's streams."""

import ctypes
import os
from typing import Any

_CC = os.environ.get("STANDIN_SM", "86")
_LOADED = ctypes.CDLL
_GRAPHS: dict[int, list[Any]] = {}


class _Driver:
    """The functions of libcuda that the worker calls, by their own names and arguments."""

    def cuInit(self, flags: int) -> int:  # noqa: N802 - NVIDIA's name, as all below
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802
        device._obj.value = 0
        return 0

    def cuDeviceGetName(self, name: Any, length: int, device: Any) -> int:  # noqa: N802
        name.value = b"Stand-in GPU"
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = 12040
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = {75: int(_CC[:-1]), 76: int(_CC[-1])}[attribute]
        return 0

    def cuStreamBeginCapture_v2(self, stream: Any, mode: int) -> int:  # noqa: N802
        _stream(stream).captured = []
        return 0

    def cuStreamEndCapture(self, stream: Any, graph: Any) -> int:  # noqa: N802
        found, _stream(stream).captured = _stream(stream).captured, None
        graph._obj.value = len(_GRAPHS) + 1
        _GRAPHS[graph._obj.value] = found
        return 0 if found else 901  # CUDA_ERROR_STREAM_CAPTURE_INVALIDATED

    def cuGraphInstantiateWithFlags(self, executable: Any, graph: Any, flags: Any) -> int:  # noqa: N802
        executable._obj.value = graph.value
        return 0

    def cuGraphDestroy(self, graph: Any) -> int:  # noqa: N802
        return 0

    def cuGraphLaunch(self, executable: Any, stream: Any) -> int:  # noqa: N802
        for work in _GRAPHS[executable.value]:
            work()
        return 0

    def cuGraphExecDestroy(self, executable: Any) -> int:  # noqa: N802
        del _GRAPHS[executable.value]
        return 0


def _stream(handle: Any) -> Any:
    from pycuda import driver

    return driver.STREAMS[handle.value]


def _load(name: Any, *arguments: Any, **more: Any) -> Any:
    return _Driver() if name == "libcuda.so.1" else _LOADED(name, *arguments, **more)


ctypes.CDLL = _load  # type: ignore[assignment]
