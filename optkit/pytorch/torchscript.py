"""TorchScript for the two stages that write it: scripting (keeps control flow) and tracing (records one run)."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from optkit import user_code
from optkit.artifact import Artifact
from optkit.artifact.tensors import Feed
from optkit.errors import StageError, first_line
from optkit.pytorch.export_failure import script_reason
from optkit.pytorch.forward import forward_call, plain_attention
from optkit.pytorch.tracing import (
    baked_in_values,
    by_position,
    quiet_tensor_constants,
    warn_unrolled_loops,
    why_not_scripted,
)

if TYPE_CHECKING:
    import torch


def write_torchscript(
    module: "torch.nn.Module",
    source: Artifact,
    path: Path,
    example: Feed,
    method: Literal["auto", "script", "trace"] = "auto",
    *,
    strict: bool = False,
) -> list[str]:
    """Save the scripted or traced module, and return notes on it.

    Args:
        module: in evaluation mode.
        source: has the inputs and dimensions.
        path: of the file.
        example: what a trace runs.
        method: `auto` scripts, and traces when the module cannot be scripted.
        strict: refuse a trace that turned a value of the example into a constant.

    Raises:
        StageError: the module cannot be scripted, traced or saved.
    """
    try:
        return _write(module, source, path, example, method, strict)
    except (RuntimeError, OSError) as e:
        raise StageError(f"{path}: TorchScript could not be saved ({first_line(e)})") from e


def _write(
    module: "torch.nn.Module",
    source: Artifact,
    path: Path,
    example: Feed,
    method: Literal["auto", "script", "trace"],
    strict: bool,
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
        ) as e:  # the frontend and the user's code raise many types; some errors appear only while saving
            reason = script_reason(e)
            if method == "script":
                raise StageError(f"the model cannot be scripted: {reason}. Try --method trace.") from e
    traced, notes = _trace(module, source, example)
    if strict and notes:
        raise StageError(f"the trace baked in values, which strict does not allow: {'; '.join(notes)}")
    traced.save(str(path))
    why = f"traced, because scripting failed: {reason}" if reason else "traced (--method trace): records one run"
    return [why, *notes]


def _script(module: "torch.nn.Module") -> "torch.jit.ScriptModule":
    import torch

    try:
        with _constants_in_order():
            return torch.jit.script(module)
    except OSError as e:  # the source of a function cannot be read; this is not an error of saving
        raise StageError(str(e)) from e


class _InOrder(dict[str, None]):
    """A set with insertion order."""

    def __init__(self, elements: Iterable[str] = ()) -> None:
        super().__init__(dict.fromkeys(elements))

    def add(self, element: str) -> None:
        self.setdefault(element)


@contextlib.contextmanager
def _constants_in_order() -> Iterator[None]:
    """Make torch write the constants of a module in a fixed order.

    torch iterates over a set of their names, whose order differs between processes, so the same model would give different files. In a
    later torch without this set, this has no effect.
    """
    from torch.jit import _recursive

    _recursive.set = _InOrder  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del _recursive.set  # type: ignore[attr-defined]


def _trace(module: "torch.nn.Module", source: Artifact, feed: Feed) -> "tuple[torch.jit.ScriptModule, list[str]]":
    import torch

    example = tuple(torch.from_numpy(feed[spec.name]) for spec in source.inputs)
    module = by_position(module, forward_call(module, source.inputs))
    with (
        plain_attention(),
        baked_in_values() as baked,
        warn_unrolled_loops(),
        quiet_tensor_constants(),
        torch.no_grad(),
    ):
        try:
            # check_trace would compare only with this input; parity compares at every corner.
            traced = torch.jit.trace(module, example, check_trace=False, strict=False)
        except Exception as e:
            raise StageError(f"the model cannot be traced: {user_code.describe(e)}") from e
    return traced, baked
