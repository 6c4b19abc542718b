"""torch.onnx's dynamo exporter, held to a time limit, and asked where in the model a dimension became a number."""

import _weakrefset
import contextlib
import logging
import re
import signal
import threading
import traceback
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from optkit import onnx_file, user_code
from optkit.artifact.tensors import Feed, TensorSpec
from optkit.pytorch.forward import dynamic_axes, forward_call

if TYPE_CHECKING:
    import onnx_ir
    import torch

# How torch logs that a dimension became a number: `eval Eq(s27, 3) [guard added] (model.py:52 in forward)`.
_BECAME_NUMBER = re.compile(r"^eval .*Eq\(\w+, (\d+)\) \[guard added\]")
_AGAIN_S = 1.0
_SOON_S = 0.01
_WEAK_REFERENCES = (weakref.__file__, _weakrefset.__file__)


class TimeUp(BaseException):
    """The time limit has passed. No Exception: torch catches those, and tries its next way to capture the model."""


def export(
    module: "torch.nn.Module",
    feed: Feed,
    path: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    opset: int,
) -> None:
    """Write the file; raises whatever torch and the user's code raise."""
    import torch

    call = forward_call(module, inputs)
    args, kwargs = call.arguments({name: torch.from_numpy(array) for name, array in feed.items()})
    shapes = {spec.name: dynamic_axes(spec) for spec in inputs}
    size = sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))
    program = torch.onnx.export(
        module,
        args,
        kwargs=kwargs,
        dynamo=True,
        opset_version=opset,
        input_names=[spec.name for spec in inputs],
        output_names=[spec.name for spec in outputs],
        dynamic_shapes=shapes if kwargs else tuple(shapes.values()),
        verbose=False,
    )
    if program is None:
        raise AssertionError("torch.onnx.export returned no program")
    _rename_namesakes(program.model, {spec.name for spec in (*inputs, *outputs)})
    # Its default writes a second file for any model.
    program.save(path, external_data=size > onnx_file.content.ONE_FILE_BYTES)


def _rename_namesakes(model: "onnx_ir.Model", names: set[str]) -> None:
    """Rename inner values that are called as an input or output was asked to be: torch renames without looking for them."""
    ends = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    for node in model.graph:
        for value in node.outputs:
            if value.name in names and id(value) not in ends:
                value.name = f"{value.name}_of_{node.name or node.op_type}"


class TimeLimit:
    """Whether a block was stopped, which other exceptions than TimeUp may hide: what C makes of it, or torch."""

    def __init__(self) -> None:
        self.passed = False


@contextlib.contextmanager
def limited(cpu_seconds: float) -> Iterator[TimeLimit]:
    """End the block with TimeUp once it has taken so much processor time.

    With many dynamic dimensions, the symbolic arithmetic of torch.export may go on for hours. It is Python, so a signal ends it, as
    Ctrl-C does; a child process would import torch and hold the weights a second time. Where there is no such timer (Windows), or
    outside the main thread, which alone receives signals, there is no limit.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield TimeLimit()
        return
    limit = TimeLimit()

    def stop(_signal: int, frame: FrameType | None) -> None:
        if _may_stop(frame):
            limit.passed = True
            raise TimeUp
        signal.setitimer(signal.ITIMER_PROF, _SOON_S, _AGAIN_S)

    before = signal.signal(signal.SIGPROF, stop)
    # Again and again: what is raised inside a callback of C is lost.
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds, _AGAIN_S)
    try:
        yield limit
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _may_stop(frame: FrameType | None) -> bool:
    """Whether an exception would arrive.

    A module that is being imported would be left half done for the rest of the process. What a destructor or a callback of a weak
    reference raises is printed and lost, and leaves the C code that freed the object in disorder.
    """
    return not any(
        f.f_code.co_filename.startswith("<frozen importlib")
        or f.f_code.co_filename in _WEAK_REFERENCES
        or f.f_code.co_name == "__del__"
        for f, _ in traceback.walk_stack(frame)
    )


class _Lines(logging.Handler):
    """Keeps the user's line at which a dimension first became a number; the code that asks is still on the stack."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        match = _BECAME_NUMBER.match(record.getMessage())
        line = user_code.current_line() if match else None
        if match and line:
            self.found.setdefault(match[1], line)


@contextlib.contextmanager
def number_lines() -> Iterator[dict[str, str]]:
    """Give, as they are found, the user's lines that made a number of a dimension: its size in the example -> `file.py:12`."""
    log = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    handlers, level, propagate = log.handlers, log.level, log.propagate
    lines = _Lines()
    log.handlers, log.propagate = [lines], False
    log.setLevel(logging.INFO)
    try:
        yield lines.found
    finally:
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)
