"""What the two stages that write TorchScript share: scripting (keeps control flow) and tracing (records one run)."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from optkit import user_code
from optkit.artifact import Artifact
from optkit.artifact.tensors import example_sizes
from optkit.data import random_feed
from optkit.errors import StageError, first_line
from optkit.pytorch.export_failure import script_reason
from optkit.pytorch.forward import forward_call
from optkit.pytorch.tracing import baked_in_values, by_position, constants_kept, loops_told, why_not_scripted

if TYPE_CHECKING:
    import torch


def write_torchscript(
    module: "torch.nn.Module",
    source: Artifact,
    path: Path,
    method: Literal["auto", "script", "trace"] = "auto",
    *,
    strict: bool = False,
) -> list[str]:
    """Save the scripted or the traced module, and return what is to be said of it.

    Args:
        module: in evaluation mode.
        source: gives the inputs and dimensions.
        path: of the file.
        method: `auto` scripts, and traces when the module cannot be scripted.
        strict: refuse a trace that turned a value of the example into a constant.

    Raises:
        StageError: it cannot be scripted, traced or saved.
    """
    try:
        return _write(module, source, path, method, strict)
    except (RuntimeError, OSError) as e:
        raise StageError(f"{path}: TorchScript could not be saved ({first_line(e)})") from e


def _write(
    module: "torch.nn.Module", source: Artifact, path: Path, method: Literal["auto", "script", "trace"], strict: bool
) -> list[str]:
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        module.save(str(path))
        return ["the source is TorchScript already"]
    reason = ""
    if method != "trace":
        try:
            if why := why_not_scripted(module, forward_call(module, source.inputs)):
                raise StageError(why)
            _script(module).save(str(path))
            return ["scripted: keeps control flow"]
        except OSError:
            raise
        except (
            Exception
        ) as e:  # the frontend raises many types, user code in it any; some is found out while saving only
            reason = script_reason(e)
            if method == "script":
                raise StageError(f"the model cannot be scripted: {reason}. Try --method trace.") from e
    traced, notes = _trace(module, source)
    if strict and notes:
        raise StageError(f"the trace baked in values, and strict allows none: {'; '.join(notes)}")
    traced.save(str(path))
    why = f"traced, because scripting failed: {reason}" if reason else "traced, as asked: records one run"
    return [why, *notes]


def _script(module: "torch.nn.Module") -> "torch.jit.ScriptModule":
    import torch

    try:
        with _constants_in_order():
            return torch.jit.script(module)
    except OSError as e:  # the source of a function cannot be read; an OSError of saving is another matter
        raise StageError(str(e)) from e


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
    with baked_in_values() as baked, loops_told(), constants_kept(), torch.no_grad():
        try:
            # check_trace would compare with this same input only; parity does it at every corner.
            traced = torch.jit.trace(module, example, check_trace=False, strict=False)
        except Exception as e:
            raise StageError(f"the model cannot be traced: {user_code.describe(e)}") from e
    return traced, baked
