"""The parts of a call on a GPU, by CUDA events. PyTorch's events also work for ONNX Runtime, on a shared stream.

Every runtime is measured in the same way, also in TensorRT's worker: pinned memory on the host, permanent buffers on the GPU, events on
one stream around the copy in, the call and the copy out, and the time that the host takes to enqueue the call. Without a GPU, the tests
use a stand-in with the restrictions of CUDA.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from optkit.artifact.findings import CallParts

if TYPE_CHECKING:
    import torch

ROUNDS = 10
WARM_UP = 3  # calls before a capture: cuBLAS and cuDNN allocate in the first, TorchScript specializes until the second


def call_parts(
    stream: "torch.cuda.Stream",
    copy_in: Callable[[], object],
    call: Callable[[], object],
    copy_out: Callable[[], object],
) -> CallParts:
    """Return the medians of ten rounds.

    Args:
        stream: the stream of all three.
        copy_in: enqueues the copies from pinned memory to the inputs.
        call: enqueues the inference on these inputs, without waiting where the runtime can do so.
        copy_out: enqueues the copies of the outputs into pinned memory.
    """
    import torch

    rows = []
    for _ in range(ROUNDS):
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
        marks[0].record(stream)
        copy_in()
        marks[1].record(stream)
        before = time.perf_counter()
        call()
        enqueue_ms = (time.perf_counter() - before) * 1000
        marks[2].record(stream)
        copy_out()
        marks[3].record(stream)
        marks[3].synchronize()  # the earlier events on the stream are then complete too
        rows.append((enqueue_ms, *(a.elapsed_time(b) for a, b in pairwise(marks))))
    enqueue_ms, copy_in_ms, compute_ms, copy_out_ms = np.median(rows, axis=0).tolist()
    return CallParts(enqueue_ms=enqueue_ms, copy_in_ms=copy_in_ms, compute_ms=compute_ms, copy_out_ms=copy_out_ms)


def captured(call: Callable[[], object]) -> tuple[Callable[[], None], object]:
    """Capture a call of PyTorch as a CUDA graph; return a function that replays it on the current stream, and its outputs.

    The first calls run on a side stream, as PyTorch requires. The inputs of the call and the outputs must outlive the replays.

    Raises:
        RuntimeError: the call cannot be captured, for example because it waits for a value.
    """
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = call()
    return graph.replay, outputs


@contextlib.contextmanager
def disable_tf32() -> Iterator[None]:
    """Disable TF32 (10-bit mantissa) for FP32 math in PyTorch; its convolutions use TF32 by default.

    PyTorch has two sets of names for this. Setting the older names also updates the newer ones. Reading the older names raises an error
    where the user has set the newer ones.
    """
    import torch

    backends: Any = torch.backends
    matmul, cudnn = backends.cuda.matmul, backends.cudnn
    places = ((matmul, (matmul,)), (cudnn, (cudnn.conv, cudnn.rnn)))
    with contextlib.ExitStack() as undo:
        for place, operations in places:
            try:
                undo.callback(setattr, place, "allow_tf32", place.allow_tf32)
            except RuntimeError:
                for operation in operations:
                    undo.callback(setattr, operation, "fp32_precision", operation.fp32_precision)
            place.allow_tf32 = False
            for operation in operations:
                if operation.fp32_precision == "tf32":  # inherited from torch.backends.fp32_precision
                    undo.callback(setattr, operation, "fp32_precision", "tf32")
                    operation.fp32_precision = "ieee"
        yield


def pinned(tensor: "torch.Tensor") -> "torch.Tensor":
    """Return an empty tensor of the same shape and dtype in pinned memory of the host."""
    import torch

    return torch.empty_like(tensor, device="cpu").pin_memory()
