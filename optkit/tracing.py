"""What a tracer needs: a model that is called by position, and told where it turned values of the example into constants."""

import contextlib
import linecache
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from optkit.forward import Call, takes_keywords

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


def baked_in_notes(caught: Sequence[warnings.WarningMessage]) -> list[str]:
    """Return a note for each place where a tracer turned a value of the example into a constant."""
    import torch

    notes = [
        f"{w.filename}:{w.lineno}: {BAKED_IN}: {str(w.message).partition('. ')[0]}"
        for w in caught
        if issubclass(w.category, torch.jit.TracerWarning)
    ]
    return list(dict.fromkeys(notes))
