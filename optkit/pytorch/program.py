"""Capture a module with torch.export for its declared ranges, in a precision, on a device."""

import copy
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optkit import user_code
from optkit.artifact.tensors import DimRange, DType, Feed, TensorSpec, dim_option
from optkit.errors import StageError
from optkit.pytorch.export_failure import captured_output
from optkit.pytorch.forward import Call, flatten, forward_call, plain_attention

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

_BRANCHES = re.compile(r"GuardOnDataDependent|data-dependent|control flow")


def capture(
    module: "torch.nn.Module",
    feed: Feed,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    dims: Mapping[str, DimRange],
    *,
    dtype: "torch.dtype | None" = None,
    device: str = "cpu",
) -> "ExportedProgram":
    """Capture a module that takes its inputs by position and returns a flat tuple of its output tensors.

    Args:
        module: it is copied where its weights are cast or moved.
        feed: example inputs, with another size above 1 for each dynamic dimension.
        inputs: in the order of the call.
        outputs: their types are kept.
        dims: the range of each named dimension; the program is valid inside these ranges only.
        dtype: of the weights, and of FP32 inputs inside the model; None keeps the types of the model.
        device: where the weights and the inputs are.

    Raises:
        StageError: torch.export cannot capture the model, or a named dimension became a constant.
    """
    import torch

    call = forward_call(module, inputs)
    if dtype is not None or device != "cpu":
        module = copy.deepcopy(module).to(device=device, dtype=dtype)
    called = _called(module, call, outputs, dtype)
    symbols = {name: _symbol(f"dim_{i}", r) for i, (name, r) in enumerate(dims.items())}
    shapes = tuple(
        {axis: symbols[dim] for axis, dim in enumerate(spec.shape) if isinstance(dim, str) and symbols[dim] is not None}
        for spec in call.inputs
    )
    with plain_attention(), warnings.catch_warnings(), captured_output():
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(
                called,
                tuple(torch.from_numpy(feed[spec.name]).to(device) for spec in call.inputs),
                dynamic_shapes=(shapes,),
                strict=False,
            )
        except Exception as e:  # torch and the user's code raise many types
            raise StageError(_reason(e, list(dims))) from e


def changed_buffers(program: "ExportedProgram") -> list[str]:
    """Return the names of the buffers that a call changes."""
    schemas = (getattr(node.target, "_schema", None) for node in program.graph.nodes)
    if not any(schema is not None and schema.is_mutable for schema in schemas):
        return []
    # A captured program keeps operators that change their argument; without them its signature names the buffers.
    with warnings.catch_warnings(), captured_output():
        warnings.simplefilter("ignore")
        return sorted(program.run_decompositions({}).graph_signature.buffers_to_mutate.values())


def _called(
    module: "torch.nn.Module", call: Call, outputs: Sequence[TensorSpec], dtype: "torch.dtype | None"
) -> "torch.nn.Module":
    import torch

    types = [getattr(torch, str(spec.dtype)) for spec in outputs]

    class Called(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: torch.Tensor) -> Any:
            named = {spec.name: tensor for spec, tensor in zip(call.inputs, tensors, strict=True)}
            if dtype is not None:
                single = [spec.name for spec in call.inputs if spec.dtype is DType.FLOAT32]
                named |= {name: named[name].to(dtype) for name in single}
            args, kwargs = call.arguments(named)
            found = [tensor for _, tensor in flatten(self.module(*args, **kwargs))]
            return tuple(tensor.to(kept) for tensor, kept in zip(found, types, strict=True))

    called = Called()
    called.training = module.training
    return called


def _symbol(name: str, allowed: DimRange) -> Any:
    """Return torch's dimension for a range; None where the range has one size, which is a constant."""
    from torch.export import Dim

    if allowed.min == allowed.max:
        return None
    step = allowed.multiple_of
    dim = Dim(name, min=allowed.min // step, max=allowed.max // step)
    return dim if step == 1 else step * dim


def _reason(error: Exception, names: Sequence[str]) -> str:
    """Return the cause with the declared names of the dimensions, and what to do."""
    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__) is not None:
        chain.append(inner)
    whole = "\n".join(map(str, chain))
    if lost := _lost(whole, names):
        return lost
    cause = user_code.describe(chain[-1])
    if _BRANCHES.search(whole):
        return f"torch.export cannot capture a branch on the values of a tensor: use torch.where or torch.cond there ({cause})"
    return f"torch.export cannot capture the model: {cause}"


def _lost(text: str, names: Sequence[str]) -> str | None:
    """Return the sentence for a dimension that is not free in its whole range, from torch's list of violated constraints."""
    _, found, listed = text.partition("Constraints violated")
    line = next((line for line in listed.splitlines() if line.startswith("  - ")), "")
    number = re.search(r"\bdim_(\d+)\b", line)
    if not found or number is None or int(number[1]) >= len(names):
        return None
    name = names[int(number[1])]
    said = re.sub(r"\bdim_(\d+)\b", lambda match: names[int(match[1])], line).strip(" -").partition(". ")[0].rstrip(".")
    return (
        f"dimension {name!r} is not free in its whole range: torch says {said!r}. The model uses that size as a constant, or ties it "
        f"to another size: compute with x.shape, or give the range that the model takes, as {dim_option(name, 'min:opt:max')}"
    )
