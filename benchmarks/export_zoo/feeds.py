"""The judge's own values and points; it shares no code with optkit."""

import re
from collections.abc import Mapping

import numpy as np

from export_zoo.catalog import Case

_INPUT = re.compile(r"(?P<name>\w+):(?P<dtype>\w+)\[(?P<dims>.*)\]")


def shapes(case: Case) -> dict[str, tuple[str, tuple[int | str, ...]]]:
    """Return input name -> its dtype and its dimensions, numbers or names."""
    found = {}
    for text in case.inputs:
        match = _INPUT.fullmatch(text)
        if not match:
            raise ValueError(f"{case.name}: {text!r} is no input")
        dims = (dim.strip() for dim in match["dims"].split(","))
        found[match["name"]] = (match["dtype"], tuple(int(dim) if dim.isdigit() else dim for dim in dims))
    return found


def feed(case: Case, sizes: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Return values that the model takes: normal floats, integers below their limit, masks that are right-padded.

    Args:
        case: the model.
        sizes: dimension -> size.
        seed: another seed gives other values.
    """
    rng = np.random.default_rng([seed, *sizes.values()])
    values = {}
    for name, (dtype, dims) in shapes(case).items():
        shape = tuple(sizes[dim] if isinstance(dim, str) else dim for dim in dims)
        limit = case.limits.get(name)
        if limit is not None:
            array = rng.integers(0, sizes[limit] if isinstance(limit, str) else limit, shape)
        elif "mask" in name or dtype == "bool":
            lengths = rng.integers(1, shape[-1] + 1, (*shape[:-1], 1))
            array = np.arange(shape[-1]) < lengths
            array = ~array if name == "padding" else array
        else:
            array = rng.standard_normal(shape)
        values[name] = np.ascontiguousarray(array.astype(dtype))
    return values


def usual_sizes(case: Case) -> dict[str, int]:
    """Return the sizes of an example: those in the middle of the ranges."""
    return {dim: usual for dim, (_, usual, _) in case.dims.items()}


def points(case: Case) -> list[dict[str, int]]:
    """Return the points at which a file must be correct: all dimensions at min, opt, max and an odd point; each alone there, others at opt."""
    usual = usual_sizes(case)
    kinds = [{dim: pick(range_) for dim, range_ in case.dims.items()} for pick in (min, max, _odd)]
    found = [usual, *kinds]
    found += [usual | {dim: kind[dim]} for dim in case.dims for kind in kinds]
    return [point for i, point in enumerate(found) if point not in found[:i]]


def _odd(range_: tuple[int, int, int]) -> int:
    """Return an odd size inside the range, as near to its upper third as there is one."""
    low, usual, high = range_
    odd = [n for n in range(low + 1, high) if n % 2 and n != usual]
    return min(odd, key=lambda n: abs(n - (low + 2 * high) / 3), default=usual)
