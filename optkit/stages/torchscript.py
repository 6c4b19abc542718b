"""What the two stages that write TorchScript share: scripting (keeps control flow) and tracing (records one run)."""

import contextlib
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from optkit import user_code
from optkit.artifact import Artifact
from optkit.data import random_feed
from optkit.errors import StageError, first_line
from optkit.forward import baked_in_notes, by_position, forward_call
from optkit.tensors import example_sizes

if TYPE_CHECKING:
    import torch


def to_torchscript(
    module: "torch.nn.Module", source: Artifact, method: Literal["auto", "script", "trace"] = "auto"
) -> "tuple[torch.jit.ScriptModule, str, list[str]]":
    """Return the module as TorchScript, how it was made, and a note for each value that a trace baked in.

    Args:
        module: in evaluation mode.
        source: gives the inputs and dimensions.
        method: `auto` scripts, and traces when the module cannot be scripted.

    Raises:
        StageError: it cannot be scripted or traced.
    """
    import torch

    reason = ""
    if method != "trace":
        try:
            if forward_call(module, source.inputs).keyword:
                raise StageError("forward takes some inputs by keyword only, and a TorchScript file by position")
            with _constants_in_order():
                return torch.jit.script(module), "scripted: keeps control flow", []
        except Exception as e:  # the frontend raises many types, user code in it any
            reason = _script_reason(e)
            if method == "script":
                raise StageError(f"the model cannot be scripted: {reason}. Try --method trace.") from e
    traced, baked_in = _trace(module, source)
    how = f"traced, because scripting failed: {reason}" if reason else "traced, as asked: records one run"
    return traced, how, baked_in


def save(scripted: "torch.jit.ScriptModule", path: Path) -> None:
    """Write a TorchScript file.

    Raises:
        StageError: it could not be saved.
    """
    try:
        scripted.save(str(path))
    except (RuntimeError, OSError) as e:
        raise StageError(f"{path}: TorchScript could not be saved ({first_line(e)})") from e


class _InOrder(dict[str, None]):
    """A set that is iterated in the order in which its elements came."""

    def __init__(self, elements: Iterable[str] = ()) -> None:
        super().__init__(dict.fromkeys(elements))

    def add(self, element: str) -> None:
        self.setdefault(element)


@contextlib.contextmanager
def _constants_in_order() -> Iterator[None]:
    """Let torch write the constants of a module in their own order.

    It iterates a set of their names, whose order changes from process to process, so that the same model would never give the same
    file twice. Where torch no longer does so, this does nothing.
    """
    from torch.jit import _recursive

    _recursive.set = _InOrder  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del _recursive.set  # type: ignore[attr-defined]


def _trace(module: "torch.nn.Module", source: Artifact) -> "tuple[torch.jit.ScriptModule, list[str]]":
    import torch

    feed = random_feed(source.inputs, example_sizes(source.dims))
    example = tuple(torch.from_numpy(feed[spec.name]) for spec in source.inputs)
    module = by_position(module, forward_call(module, source.inputs))
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always", torch.jit.TracerWarning)
        try:
            # check_trace would compare with this same input only; parity does it at every corner.
            traced = torch.jit.trace(module, example, check_trace=False, strict=False)
        except Exception as e:
            raise StageError(f"the model cannot be traced: {user_code.describe(e)}") from e
    return traced, baked_in_notes(caught)


def _script_reason(error: BaseException) -> str:
    """Return the cause and the user's line of an error of the TorchScript compiler."""
    line = re.search(r'File "([^"]+)", line (\d+)', str(error))
    return f"{first_line(error).rstrip(':')}{f' ({line[1]}:{line[2]})' if line else ''}"
