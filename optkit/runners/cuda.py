"""Where the time of a call on a GPU goes, by CUDA events; PyTorch's events serve ONNX Runtime too, on a stream that both know.

The parts are the same for every runtime, TensorRT's worker included: pinned memory on the host, buffers on the GPU that stay, events
on one stream around the copy in, the call and the copy out, and the time that the host takes to enqueue the call. Where no GPU is, the tests
run it against a stand-in that refuses what CUDA refuses.
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
WARM_UP = (
    3  # calls before a capture: cuBLAS and cuDNN allocate in the first, TorchScript still specialises in the second
)


def call_parts(
    stream: "torch.cuda.Stream",
    copy_in: Callable[[], object],
    call: Callable[[], object],
    copy_out: Callable[[], object],
) -> CallParts:
    """Return the medians of ten rounds.

    Args:
        stream: that all three put their work on.
        copy_in: enqueues the copies from pinned memory to the inputs.
        call: enqueues the inference on these inputs, and does not wait for it where the runtime can do so.
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
        marks[3].synchronize()  # the events before it on the stream are then over too
        rows.append((enqueue_ms, *(a.elapsed_time(b) for a, b in pairwise(marks))))
    enqueue_ms, copy_in_ms, compute_ms, copy_out_ms = np.median(rows, axis=0).tolist()
    return CallParts(enqueue_ms=enqueue_ms, copy_in_ms=copy_in_ms, compute_ms=compute_ms, copy_out_ms=copy_out_ms)


def captured(call: Callable[[], object]) -> tuple[Callable[[], None], object]:
    """Capture a call of PyTorch as a CUDA graph; return what replays it on the current stream, and the outputs that it writes into.

    The first calls happen on a side stream, as PyTorch asks of what is captured. What the call reads and what it returned must outlive the
    replays.

    Raises:
        RuntimeError: the call does what no graph can hold, such as to wait for a value.
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
def fp32_products() -> Iterator[None]:
    """Keep PyTorch from computing products of FP32 in TF32, which its convolutions do by default and which has 10 bits of 23.

    PyTorch has two sets of names for this. To set the older ones keeps the newer in step; to read them raises where the user set the newer.
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
                if operation.fp32_precision == "tf32":  # from torch.backends.fp32_precision, which is for all
                    undo.callback(setattr, operation, "fp32_precision", "tf32")
                    operation.fp32_precision = "ieee"
        yield


def pinned(tensor: "torch.Tensor") -> "torch.Tensor":
    """Return an empty tensor like this one in pinned memory of the host."""
    import torch

    return torch.empty_like(tensor, device="cpu").pin_memory()
