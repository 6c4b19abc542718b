"""The operator that an exporter wrote wrongly, with the line of the user's model, where a file gives other values than the model.

The model runs once more while every operator's output is kept, and so does the file while every node's output is. The faulty operator is
the first whose output no node of the file has, although nodes have its inputs; nothing that follows from it is in the file either. This
needs no names, which every exporter writes in another way.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit import onnx_file, user_code
from optkit.artifact import Artifact, Format
from optkit.artifact.tensors import Feed
from optkit.onnx_file.node_values import node_values
from optkit.pytorch.forward import forward_call
from optkit.pytorch.source import load_module

if TYPE_CHECKING:
    import numpy as np
    import onnx

_MOST_OPERATORS = 5_000
_RTOL = 1e-3
_CHOICES = (
    "topk",
    "sort",
    "argsort",
    "argmax",
    "argmin",
    "max.dim",
    "min.dim",
    "median",
    "kthvalue",
    "mode",
)  # of aten


@dataclasses.dataclass
class _Operator:
    """One call of an operator: its inputs and outputs by the identity of their tensors."""

    name: str
    line: str | None
    inputs: list[int]
    output: int
    value: "np.ndarray"
    found: bool = False  # whether a node of the file has this value


def faulty_operator(reference: Artifact, candidate: Artifact, feed: Feed) -> str | None:
    """Return the operator and the line of the model, as in `aten.log_sigmoid_forward (model.py:12)`; None where none can be named.

    Args:
        reference: the model.
        candidate: the ONNX file.
        feed: on which their outputs differ.
    """
    if reference.format is not Format.PYTORCH or candidate.format is not Format.ONNX:
        return None
    try:
        operators = _run_model(reference, feed)
        values = _run_file(candidate.path, feed)
    except Exception:  # the search is for a better message alone; torch and onnxruntime raise many types
        return None
    if operators is None or values is None:
        return None
    for operator in operators:
        operator.found = any(_equal(operator.value, value) for value in values.get(operator.value.shape, ()))
    fault = _first_fault(operators)
    if fault is None:
        return None
    name = f"{fault.name} ({fault.line})" if fault.line else fault.name
    node = _first_infinite(candidate.path, feed)
    return f"{name}; in the file it is the node {node}" if node else name


def chooses_among_equals(reference: Artifact, feed: Feed) -> bool:
    """Whether the model selects by scores of which some are equal on this feed; every runtime may then take another one."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    if reference.format is not Format.PYTORCH:
        return False
    equal = False

    class Watcher(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal equal
            name = str(func).removeprefix("aten.")
            if name.startswith(_CHOICES) and args and isinstance(args[0], torch.Tensor):
                scores = args[0].detach().flatten()
                equal = equal or len(scores.unique()) < len(scores)
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Watcher():  # type: ignore[no-untyped-call]
        _call(reference, feed)
    return equal


def _call(reference: Artifact, feed: Feed) -> None:
    import numpy as np
    import torch

    module = load_module(reference)
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in feed.items()}
    args, kwargs = forward_call(module, reference.inputs).arguments(tensors)
    module(*args, **kwargs)


def _first_fault(operators: Sequence[_Operator]) -> _Operator | None:
    """Return the first operator that is not in the file, with its inputs in it, and nothing that depends on it."""
    made_by = {operator.output: operator for operator in operators}
    in_file = {operator.output for operator in operators if operator.found}
    alive: set[int] = set()  # outputs from which something in the file follows
    for operator in reversed(operators):
        if operator.found or operator.output in alive:
            alive.update(operator.inputs)
    for operator in operators:
        known = all(i in in_file or i not in made_by for i in operator.inputs)
        if not operator.found and operator.output not in alive and known:
            return operator
    return None


def _equal(a: "np.ndarray", b: "np.ndarray") -> bool:
    import numpy as np

    if a.dtype.kind != b.dtype.kind:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    scale = float(np.max(np.abs(a), where=np.isfinite(a), initial=0.0))
    with np.errstate(all="ignore"):
        return bool(np.allclose(a, b, rtol=_RTOL, atol=1e-6 * scale if math.isfinite(scale) else 0.0, equal_nan=True))


def _run_model(reference: Artifact, feed: Feed) -> list[_Operator] | None:
    """Run the model and return its operators in order; None where they are too many."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    operators: list[_Operator] = []
    kept: list[torch.Tensor] = []  # alive, so that no two tensors have the same id

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            first = next((leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)), None)
            if first is not None and first.dtype.is_floating_point and len(operators) <= _MOST_OPERATORS:
                kept.extend([*inputs, first])
                value = first.detach().cpu().numpy().copy()
                name = str(func).removesuffix(".default")
                operators.append(_Operator(name, user_code.current_line(), [id(i) for i in inputs], id(first), value))
            return out

    with torch.no_grad(), Recorder():  # type: ignore[no-untyped-call]
        _call(reference, feed)
    return operators if len(operators) <= _MOST_OPERATORS else None


def _run_file(path: Path, feed: Feed) -> "dict[tuple[int, ...], list[np.ndarray]] | None":
    """Run the file and return the float values of all its nodes, by shape; None where they are too large."""
    named = node_values(path, feed)
    if named is None:
        return None
    values: dict[tuple[int, ...], list[np.ndarray]] = {}
    for array in (*named.values(), *feed.values()):
        values.setdefault(array.shape, []).append(array)
    return values


def _first_infinite(path: Path, feed: Feed) -> str | None:
    """Return the first node that makes NaN or an infinity of finite numbers, as `'node_Log_3' (Log)`; None where there is none."""
    import numpy as np

    values = node_values(path, feed)
    if values is None:
        return None
    finite = {
        name: bool(np.isfinite(array).all())
        for name, array in (*values.items(), *feed.items())
        if array.dtype.kind == "f"
    }
    for node in _graph(path).node:
        if all(finite.get(name, True) for name in node.input) and not all(
            finite.get(name, True) for name in node.output
        ):
            return f"{node.name or node.output[0]!r} ({node.op_type})"
    return None


def _graph(path: Path) -> "onnx.GraphProto":
    return onnx_file.load(path, weights=False).graph
