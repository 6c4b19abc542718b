"""What a tracer needs: a model that is called by position, and told where it turned values of the example into constants."""

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
    """Return the module itself when all that its forward takes goes by position, else one around it that takes its inputs so.

    TorchScript files are called by position, and tracers take nothing else.
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
    """Return why a module cannot be scripted, where that is known without trying."""
    if call.keyword:
        return "forward takes some inputs by keyword only, and a TorchScript file by position"
    if getattr(module, "returns_tuple", False) is True:
        return "forward returns a type of its own, which a TorchScript file cannot hold"
    return None


@contextlib.contextmanager
def loops_told() -> Iterator[None]:
    """Warn where a trace unrolls a `range` over a size, as torch warns of other values that it turns into constants.

    torch keeps silent there, because slices by a size, which are traced rightly, ask in the same way.
    """
    import torch

    index = torch.Tensor.__index__

    def told(self: torch.Tensor) -> int:
        if torch.jit.is_tracing():
            frame = sys._getframe(1)
            if "range(" in linecache.getline(frame.f_code.co_filename, frame.f_lineno):
                message = "range() over a size of the example unrolls the loop"
                warnings.warn(message, torch.jit.TracerWarning, stacklevel=2)
        return index(self)

    torch.Tensor.__index__ = told  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del torch.Tensor.__index__


@contextlib.contextmanager
def constants_kept() -> Iterator[None]:
    """Let a trace make tensors of Python numbers without a warning: a number that came from a tensor has had one of its own.

    torch warns at each torch.tensor(), as torch.distributions calls it for every constant parameter. What holds a tensor or a list, whose
    length may be a size, is warned of as before.
    """
    import torch

    make = torch.tensor

    def told(data: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        if type(data) not in (bool, int, float):
            return make(data, *args, **kwargs)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.tensor results are registered", torch.jit.TracerWarning)
            return make(data, *args, **kwargs)

    torch.tensor = told
    try:
        yield
    finally:
        torch.tensor = make


@contextlib.contextmanager
def baked_in_values() -> Iterator[list[str]]:
    """Give, as they are found, notes of the lines at which a tracer turned a value of the example into a constant; no warning gets out.

    For a line inside torch the user's line that led there is named. torch's checks of what it is given are left out: the answer does not
    depend on them, and every GRU and LSTM has some.
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
    """Whether a line is the condition of an `if` that does nothing but raise, or of an `assert`."""
    for node in ast.walk(ast.parse("".join(linecache.getlines(file)))):
        if isinstance(node, ast.If | ast.Assert) and node.test.lineno <= line <= (node.test.end_lineno or 0):
            return isinstance(node, ast.Assert) or all(
                isinstance(part, ast.Raise) for part in (*node.body, *node.orelse)
            )
    return False
