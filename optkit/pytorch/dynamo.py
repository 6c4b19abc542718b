"""torch.onnx's dynamo exporter with a time limit, and the lines of the model where a dimension became a number."""

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

# torch's log line for a dimension that became a number: `eval Eq(s27, 3) [guard added] (model.py:52 in forward)`.
_BECAME_NUMBER = re.compile(r"^eval .*Eq\(\w+, (\d+)\) \[guard added\]")
_AGAIN_S = 1.0
_SOON_S = 0.01
_WEAK_REFERENCES = (weakref.__file__, _weakrefset.__file__)


class TimeUp(BaseException):
    """The time limit has passed. It is not an Exception, because torch catches those and tries another way to capture."""


def export(
    module: "torch.nn.Module",
    feed: Feed,
    path: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    opset: int,
) -> None:
    """Write the file; errors of torch and of the user's code are not translated."""
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
    # The default writes a second file for every model.
    program.save(path, external_data=size > onnx_file.content.ONE_FILE_BYTES)


def _rename_namesakes(model: "onnx_ir.Model", names: set[str]) -> None:
    """Rename inner values whose name an input or output also has: torch renames inputs and outputs without this check."""
    ends = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    for node in model.graph:
        for value in node.outputs:
            if value.name in names and id(value) not in ends:
                value.name = f"{value.name}_of_{node.name or node.op_type}"
    for name in names & set(model.graph.initializers):
        value = model.graph.initializers[name]
        if id(value) not in ends:  # a buffer or parameter with the name of an input or output
            del model.graph.initializers[name]
            value.name = f"{name}_of_model"
            model.graph.initializers[value.name] = value


class TimeLimit:
    """Whether the block was stopped. C code and torch may replace TimeUp with another exception."""

    def __init__(self) -> None:
        self.passed = False


@contextlib.contextmanager
def limited(cpu_seconds: float) -> Iterator[TimeLimit]:
    """Raise TimeUp inside the block after this much processor time.

    With many dynamic dimensions, the symbolic arithmetic of torch.export may run for hours. It is Python code, so a signal ends it, like
    Ctrl-C. A child process would import torch and load the weights again. There is no limit where this timer does not exist (Windows),
    and outside the main thread, because only the main thread receives signals.
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
    # Repeatedly, because an exception inside a C callback is lost.
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds, _AGAIN_S)
    try:
        yield limit
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _may_stop(frame: FrameType | None) -> bool:
    """Whether an exception reaches the exporter from here.

    An interrupted import would leave an incomplete module. An exception inside a destructor or a weak reference's callback is printed
    and lost, and may leave the C code that freed the object in a wrong state.
    """
    return not any(
        f.f_code.co_filename.startswith("<frozen importlib")
        or f.f_code.co_filename in _WEAK_REFERENCES
        or f.f_code.co_name == "__del__"
        for f, _ in traceback.walk_stack(frame)
    )


class _Lines(logging.Handler):
    """Records the user's line where a dimension first became a number; that code is still on the stack."""

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
    """Yield a dict that collects the user's lines where a dimension became a number: its size in the example -> `file.py:12`."""
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
