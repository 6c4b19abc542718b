"""Helpers for tracers: a model with positional inputs, and warnings where a value of the example became a constant."""

import ast
import contextlib
import linecache
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from optkit import user_code
from optkit.pytorch.forward import Call, takes_keywords

if TYPE_CHECKING:
    import torch

BAKED_IN = "the trace baked in a value"


def by_position(module: "torch.nn.Module", call: Call) -> "torch.nn.Module":
    """Return the module, or a wrapper with positional inputs where forward takes some inputs by keyword.

    Tracers and TorchScript files support only positional inputs.
    """
    if not call.keyword and not takes_keywords(module):
        return module
    import torch

    class ByPosition(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: torch.Tensor) -> Any:
            named = {spec.name: tensor for spec, tensor in zip(call.inputs, tensors, strict=True)}
            args, kwargs = call.arguments(named)
            return self.module(*args, **kwargs)

    return ByPosition().eval()


def why_not_scripted(module: "torch.nn.Module", call: Call) -> str | None:
    """Return the reason why a module cannot be scripted, where it is known in advance."""
    if call.keyword:
        return "forward takes some inputs by keyword only; a TorchScript file takes positional inputs"
    if getattr(module, "takes_flat", False) is True:
        return "forward takes nested tensors; a TorchScript file takes flat ones"
    if getattr(module, "returns_tuple", False) is True:
        return "forward returns its own type, which TorchScript does not support"
    return None


@contextlib.contextmanager
def warn_unrolled_loops() -> Iterator[None]:
    """Warn where a trace unrolls a `range` over a size, as torch warns about other values that become constants.

    torch does not warn there, because slices by a size, which are traced correctly, make the same call.
    """
    import torch

    index = torch.Tensor.__index__

    def warning_index(self: torch.Tensor) -> int:
        if torch.jit.is_tracing():
            frame = sys._getframe(1)
            if "range(" in linecache.getline(frame.f_code.co_filename, frame.f_lineno):
                message = "range() over a size of the example unrolls the loop"
                warnings.warn(message, torch.jit.TracerWarning, stacklevel=2)
        return index(self)

    torch.Tensor.__index__ = warning_index  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del torch.Tensor.__index__


@contextlib.contextmanager
def quiet_tensor_constants() -> Iterator[None]:
    """Suppress the tracer's warning for torch.tensor() of a Python number: a number from a tensor had its own warning before.

    torch warns at each torch.tensor(); torch.distributions calls it for every constant parameter. The warning stays for tensors and for
    lists, whose length may be a size.
    """
    import torch

    make = torch.tensor

    def quiet_tensor(data: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        if type(data) not in (bool, int, float):
            return make(data, *args, **kwargs)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.tensor results are registered", torch.jit.TracerWarning)
            return make(data, *args, **kwargs)

    torch.tensor = quiet_tensor
    try:
        yield
    finally:
        torch.tensor = make


@contextlib.contextmanager
def baked_in_values() -> Iterator[list[str]]:
    """Yield a list that collects notes on lines where a tracer turned a value of the example into a constant; warnings are suppressed.

    For a line inside torch, the note names the user's line that called it. torch's checks of its arguments are left out: the outputs do
    not depend on them, and every GRU and LSTM has some.
    """
    import torch

    own = str(Path(torch.__file__).parent)
    notes: list[str] = []

    def keep(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,  # noqa: ARG001 - the signature of warnings.showwarning
        line: str | None = None,  # noqa: ARG001
    ) -> None:
        inside = filename.startswith(own)
        if not issubclass(category, torch.jit.TracerWarning) or (inside and _only_raises(filename, lineno)):
            return
        where = f"{filename}:{lineno}"
        user = user_code.current_line() if inside else None
        note = f"{user or where}: {BAKED_IN}: {str(message).partition('. ')[0]}{f' (in {where})' if user else ''}"
        if note not in notes:
            notes.append(note)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = keep
        yield notes


def _only_raises(file: str, line: int) -> bool:
    """Whether a line is the condition of an `if` that only raises, or of an `assert`."""
    for node in ast.walk(ast.parse("".join(linecache.getlines(file)))):
        if isinstance(node, ast.If | ast.Assert) and node.test.lineno <= line <= (node.test.end_lineno or 0):
            return isinstance(node, ast.Assert) or all(
                isinstance(part, ast.Raise) for part in (*node.body, *node.orelse)
            )
    return False
