"""What the worker uses of pycuda.driver; copies of a wrong size, freed memory and foreign contexts are errors, as on a GPU."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

STREAMS: dict[int, "Stream"] = {}
MEMORY: dict[int, np.ndarray] = {}
_addresses = itertools.count(0x7000_0000, 0x1000_0000)
_handles = itertools.count(1)
_context: list["Context"] = []


class LogicError(Exception):
    """pycuda's own name for what the driver refuses."""


def init() -> None:
    """Nothing to start."""


class Context:
    """The primary context."""

    def push(self) -> None:
        _context.append(self)

    def pop(self) -> None:
        _context.pop()


class Device:
    """The one GPU."""

    def __init__(self, ordinal: int) -> None:
        assert ordinal == 0

    def retain_primary_context(self) -> Context:
        return Context()


def _needs_context() -> None:
    if not _context:
        raise LogicError("cuMemAlloc failed: invalid device context")


class Allocation:
    """A piece of memory with an address."""

    def __init__(self, size: int) -> None:
        _needs_context()
        self._address = next(_addresses)
        MEMORY[self._address] = np.zeros(size, np.uint8)

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        del MEMORY[self._address]


def mem_alloc(size: int) -> Allocation:
    if size < 1:
        raise LogicError("cuMemAlloc failed: invalid argument")
    return Allocation(size)


def pagelocked_empty(shape: Any, dtype: Any) -> np.ndarray:
    _needs_context()
    return np.empty(shape, dtype)


class Stream:
    """Work is done when it is put on the stream, or kept while the stream is captured."""

    def __init__(self) -> None:
        self.handle = next(_handles)
        self.captured: list[Callable[[], None]] | None = None
        STREAMS[self.handle] = self

    def put(self, work: Callable[[], None]) -> None:
        if self.captured is not None:
            self.captured.append(work)
        else:
            work()

    def synchronize(self) -> None:
        if self.captured is not None:
            raise LogicError("cuStreamSynchronize failed: operation not permitted when stream is capturing")


class Event:
    """A moment on a stream."""

    def __init__(self) -> None:
        self.at: float | None = None

    def record(self, stream: Stream) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        assert self.at is not None

    def time_since(self, other: "Event") -> float:
        assert self.at is not None
        assert other.at is not None
        return (self.at - other.at) * 1000


def memcpy_htod_async(target: Allocation, source: np.ndarray, stream: Stream) -> None:
    assert source.flags.c_contiguous
    stream.put(lambda: write(int(target), source))


def memcpy_dtoh_async(target: np.ndarray, source: Allocation, stream: Stream) -> None:
    stream.put(lambda: memcpy_dtoh(target, int(source)))


def memcpy_dtoh(target: np.ndarray, source: int) -> None:
    if target.nbytes > MEMORY[source].nbytes:
        raise LogicError("cuMemcpyDtoH failed: invalid argument")
    target.reshape(-1).view(np.uint8)[:] = MEMORY[source][: target.nbytes]


def write(address: int, array: np.ndarray) -> None:
    """Put an array at an address; beyond the end of an allocation is an error, as it is on a GPU."""
    if array.nbytes > MEMORY[address].nbytes:
        raise LogicError("cuMemcpyHtoD failed: invalid argument")
    MEMORY[address][: array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
