"""The outputs of an nn.Module: their names, dtypes and dimensions, found by running it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from optkit.data import random_feed
from optkit.errors import ModelError
from optkit.forward import run_forward
from optkit.tensors import Dim, DimRange, DType, TensorSpec

if TYPE_CHECKING:
    import torch


def output_specs(
    module: "torch.nn.Module",
    inputs: Sequence[TensorSpec],
    dims: Mapping[str, DimRange],
    names: tuple[str, ...] | None = None,
) -> tuple[TensorSpec, ...]:
    """Find the outputs and their dimensions by running the module where the named dimensions have different sizes.

    Args:
        module: in evaluation mode.
        inputs: what it takes.
        dims: the ranges of the named dimensions.
        names: other names for the outputs, in order.

    Raises:
        ModelError: forward raises, it gives other answers for the same input, its outputs change with the sizes, or the names are
            too few or too many.
    """
    points = [_distinct(dims, 0), _distinct(dims, 1)]
    first, second = (run_forward(module, inputs, random_feed(inputs, point)) for point in points)
    again = run_forward(module, inputs, random_feed(inputs, points[0]))
    if set(first) != set(again) or not all(_close(a, again[name]) for name, a in first.items()):
        raise ModelError(
            "forward gives other answers for the same input each time, so nothing can be proven against it; expected a "
            "model in evaluation mode. Look for dropout with training=True, or random numbers in forward."
        )
    if set(first) != set(second):
        raise ModelError(f"forward returns {', '.join(first)} at one size and {', '.join(second)} at another")
    if names is not None and len(names) != len(first):
        raise ModelError(
            f"outputs: {len(names)} names given ({', '.join(names)}), but forward returns {', '.join(first)}"
        )
    specs = []
    for name, (found, a) in zip(names or tuple(first), first.items(), strict=True):
        b = second[found]
        if a.dim() != b.dim():
            raise ModelError(f"output {name!r}: has {a.dim()} dimensions at one size and {b.dim()} at another")
        shape = tuple(_dim(f"{name}_dim_{i}", a.shape[i], b.shape[i], points) for i in range(a.dim()))
        specs.append(TensorSpec(name=name, dtype=_dtype(name, a), shape=shape))
    return tuple(specs)


def _close(a: "torch.Tensor", b: "torch.Tensor") -> bool:
    """Whether two answers are the same but for the order of additions; NaN is judged by parity, not here."""
    import torch

    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-3, atol=1e-4, equal_nan=True)


def _distinct(dims: Mapping[str, DimRange], turn: int) -> dict[str, int]:
    """Return sizes that differ from turn to turn wherever a range has two, by another step for each dimension.

    So an output of `sequence - 1` is not taken for one of `batch`, which two neighbouring sizes may make look alike.
    """
    sizes: dict[str, int] = {}
    for i, (name, r) in enumerate(dims.items()):
        first = min(r.max, r.min + 3 * i * r.multiple_of)
        step = (i + 1) * r.multiple_of
        second = first + step if first + step <= r.max else max(r.min, first - step)
        sizes[name] = second if turn else first
    return sizes


def _dim(fallback: str, a: int, b: int, points: Sequence[Mapping[str, int]]) -> Dim:
    same = [name for name in points[0] if points[0][name] == a and points[1][name] == b and a != b]
    if same:
        return same[0]
    return a if a == b else fallback


def _dtype(name: str, tensor: "torch.Tensor") -> DType:
    text = str(tensor.dtype).removeprefix("torch.")
    if text not in set(DType):
        raise ModelError(f"output {name!r}: is {text}; optkit handles {', '.join(DType)}. Cast it in forward.")
    return DType(text)
