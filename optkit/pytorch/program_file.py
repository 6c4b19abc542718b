"""What a .pt2 file of torch.export.save says of its inputs: names, types, and the ranges of dimensions that vary."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit.artifact.tensors import Dim, DimRange, DType, TensorSpec
from optkit.pytorch.infer_inputs import InputContract
from optkit.pytorch.origins import ExportedProgramFile

if TYPE_CHECKING:
    import torch

_USUAL = DimRange(min=1, opt=8, max=64)


def program_contract(path: Path) -> InputContract | None:
    """Return the inputs of a saved program with the ranges that it was exported for.

    None if a dimension is an expression of others, or an input has a type that optkit does not feed: the file then says too little.

    Raises:
        ModelError: it is not an exported program.
    """
    program = ExportedProgramFile(str(path)).program()
    tensors = list(_inputs(program))
    firsts = {str(value.shape[0]) for _, value in tensors if value.ndim}
    shares_batch = len(firsts) == 1 and all(value.ndim and not isinstance(value.shape[0], int) for _, value in tensors)
    names: dict[str, str] = {firsts.pop(): "batch"} if shares_batch else {}
    dims: dict[str, DimRange] = {}
    inputs = []
    for name, value in tensors:
        kind = str(value.dtype).removeprefix("torch.")
        shape: list[Dim] = []
        for axis, size in enumerate(value.shape):
            if isinstance(size, int):
                shape.append(size)
                continue
            found = program.range_constraints.get(size.node.expr)
            if found is None or kind not in set(DType):
                return None
            dim = names.setdefault(str(size), f"{name}_{axis}")
            dims[dim] = _range(found)
            shape.append(dim)
        inputs.append(TensorSpec(name=name, dtype=DType(kind), shape=tuple(shape)))
    return InputContract(inputs=tuple(inputs), dims=dims)


def _inputs(program: "torch.export.ExportedProgram") -> Iterator[tuple[str, Any]]:
    """Yield name and value of each input that a caller gives, without parameters and buffers."""
    given = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in given:
            yield node.name, node.meta["val"]


def _range(found: Any) -> DimRange:
    """Return the range of a dimension; one without a largest size gets the usual one."""
    low = max(1, int(found.lower))
    bounded = str(found.upper).isdigit() and int(found.upper) < 2**31
    high = int(found.upper) if bounded else max(low, _USUAL.max)
    return DimRange(min=low, opt=min(max(low, _USUAL.opt), high), max=high)
