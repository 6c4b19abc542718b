"""The time of calls, measured inside this process, so that no time includes messages between processes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Callable, Sequence

from .tensors import read_feed

if TYPE_CHECKING:
    from .cuda_graph import CudaGraph
    from .execution import ExecutionSlot
    from .protocol import Json
    from .session import Session

_ROUNDS = 50  # calls whose parts are timed


def time_calls(session: Session, request: Json) -> Json:
    """Time calls on inputs that are placed once.

    Each of `times_ms` is one complete inference without copies. With several slots, `per_second` counts the inferences of all of them.
    """
    graphs = _prepare(session, request)
    calls = [graph.launch for graph in graphs] or [slot.enqueue for slot in session.slots]
    stream = session.slots[0].stream

    def once() -> None:
        calls[0]()
        stream.synchronize()

    dropped = _timed(once, request["drop_s"], request["drop_calls"])
    found: Json = {
        "dropped_calls": len(dropped),
        "times_ms": _timed(once, request["block_s"], request["block_calls"]),
    }
    if len(calls) > 1:
        found["per_second"] = _throughput(session.slots, calls, request["block_s"])
    for graph in graphs:
        graph.free()
    return found


def time_parts(session: Session, request: Json) -> Json:
    """Return the medians of the parts of a call in ms: enqueue on the host's clock, the others by events on the stream."""
    graphs = _prepare(session, request)
    slot, cuda = session.slots[0], session.cuda
    call = graphs[0].launch if graphs else slot.enqueue
    parts: dict[str, list[float]] = {"enqueue_ms": [], "copy_in_ms": [], "compute_ms": [], "copy_out_ms": []}
    for _ in range(_ROUNDS):
        marks = [cuda.Event() for _ in range(4)]
        marks[0].record(slot.stream)
        slot.copy_in()
        marks[1].record(slot.stream)
        before = time.perf_counter()
        call()
        parts["enqueue_ms"].append((time.perf_counter() - before) * 1000)
        marks[2].record(slot.stream)
        slot.copy_out()
        marks[3].record(slot.stream)
        marks[3].synchronize()
        for part, start, end in zip(("copy_in_ms", "compute_ms", "copy_out_ms"), marks, marks[1:]):
            parts[part].append(end.time_since(start))
    for graph in graphs:
        graph.free()
    return {part: sorted(values)[_ROUNDS // 2] for part, values in parts.items()}


def _prepare(session: Session, request: Json) -> list[CudaGraph]:
    """Copy the inputs of a request to the GPU for every slot, and capture CUDA graphs if requested."""
    for slot in session.slots:
        slot.place(read_feed(request))
        slot.copy_in()
        slot.stream.synchronize()
    return [slot.capture() for slot in session.slots] if request["cuda_graph"] else []


def _timed(call: Callable[[], None], shortest_s: float, fewest: int) -> list[float]:
    """Call until both limits are reached, as optkit's own loop does; return the time of each call in ms."""
    clock = time.perf_counter_ns
    times: list[float] = []
    before = clock()
    end = before + int(shortest_s * 1e9)
    while len(times) < fewest or before < end:
        before = clock()
        call()
        after = clock()
        times.append((after - before) / 1e6)
        before = after
    return times


def _throughput(slots: Sequence[ExecutionSlot], calls: Sequence[Callable[[], None]], duration_s: float) -> float:
    """Return the inferences per second of all slots together; each round ends before the next one starts."""
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < max(duration_s, 0.01):
        for call in calls:
            call()
        for slot in slots:
            slot.stream.synchronize()
        done += len(calls)
    return done / (time.perf_counter() - started)
