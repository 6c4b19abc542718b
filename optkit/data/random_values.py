"""Seeded random values where there is no real data: never for calibration, and always said.

By its name an integer or boolean input is a mask, lengths, or ids. Masks mean opposite things: `attention_mask` keeps where it is True;
`*padding_mask` and `attn_mask` of PyTorch ignore where it is True.
"""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from optkit.artifact.passport import RandomValues
from optkit.artifact.tensors import DType, Sizes, TensorSpec

if TYPE_CHECKING:
    import numpy as np

_SIGNED = (DType.INT64, DType.INT32, DType.INT16, DType.INT8)
_IGNORING = re.compile(r"padding_?mask|pad_mask|attn_mask|(^|_)(src|tgt|memory)_mask")  # as nn.Transformer names them
_LENGTHS = re.compile(r"(^|_)(lengths?|lens?|num_(frames|tokens|steps))($|_)")

_MASKS: tuple[Literal["padded", "reversed", "false", "true"], ...] = ("padded", "reversed", "false", "true")


def is_lengths(spec: TensorSpec) -> bool:
    """Whether an input is the lengths of the samples of a batch, by its name."""
    return spec.dtype in _SIGNED and _LENGTHS.search(spec.name) is not None


def longest(inputs: Sequence[TensorSpec], sizes: Sizes) -> int:
    """Return the length that no sample exceeds: the smallest second dimension of the other inputs."""
    return min((spec.shape_at(sizes)[1] for spec in inputs if len(spec.shape) > 1), default=1)


def candidates(inputs: Sequence[TensorSpec]) -> Iterator[RandomValues]:
    """Yield the kinds of values to try on a model, the usual ones first, and only such as differ for these inputs."""
    masks = any(is_mask(spec) for spec in inputs)
    whole = any(not spec.dtype.is_float and not is_mask(spec) for spec in inputs)
    floats = any(spec.dtype.is_float for spec in inputs)
    found = [
        RandomValues(masks=m, integers=i, floats=f)
        for m in (_MASKS if masks else _MASKS[:1])
        for i in (("from 0", "from 1") if whole else ("from 0",))
        for f in (("normal", "positive") if floats else ("normal",))
    ]
    usual = RandomValues()
    yield from sorted(
        found, key=lambda v: sum(getattr(v, k) != getattr(usual, k) for k in ("masks", "integers", "floats"))
    )


def is_mask(spec: TensorSpec) -> bool:
    """Whether an input is a mask of integers or booleans, by its name."""
    return "mask" in spec.name and not spec.dtype.is_float and bool(spec.shape)


def random_feed(
    inputs: Sequence[TensorSpec],
    sizes: Sizes,
    seed: int = 0,
    *,
    wide: bool = False,
    values: RandomValues | None = None,
) -> "dict[str, np.ndarray]":
    """Return seeded random values: normal for floats; 0 and 1 for integers and booleans, which are valid ids in every model.

    An integer or boolean input with `mask` in its name keeps the first part of its last dimension, at least one element, like the mask
    of a text with padding on the right. A fully masked row would have undefined outputs. Lengths are at most the second dimension of the
    other inputs.

    Args:
        inputs: the inputs of the model.
        sizes: named dimension -> its size.
        seed: the same seed, inputs and sizes give the same values.
        wide: integers from -8 to 8, which not every model accepts.
        values: other values, for a model that does not accept the usual ones.
    """
    import numpy as np

    values = values or RandomValues()
    rng = np.random.default_rng(seed)
    feed: dict[str, np.ndarray] = {}
    for spec in inputs:
        shape = spec.shape_at(sizes)
        if spec.dtype.is_float:
            made: np.ndarray = rng.standard_normal(shape)
            made = np.abs(made) % 1.0 + 0.01 if values.floats == "positive" else made
        elif is_mask(spec):
            made = _mask(spec, shape, values, rng)
        elif is_lengths(spec):
            made = rng.integers(1, longest(inputs, sizes) + 1, shape)
        else:
            low = 1 if values.integers == "from 1" else 0
            made = rng.integers(-8, 9, shape) if wide and spec.dtype in _SIGNED else rng.integers(low, low + 2, shape)
            made = np.where(made == 0, 1, made) if wide and low else made
        feed[spec.name] = np.asarray(made, dtype=spec.dtype.numpy, order="C")
    return feed


def _mask(spec: TensorSpec, shape: tuple[int, ...], values: RandomValues, rng: "np.random.Generator") -> "np.ndarray":
    import numpy as np

    kept: np.ndarray = np.arange(shape[-1]) < rng.integers(1, shape[-1] + 1, (*shape[:-1], 1))
    match values.masks:
        case "padded":
            return ~kept if _IGNORING.search(spec.name) else kept
        case "reversed":
            return kept if _IGNORING.search(spec.name) else ~kept
        case "false":
            return np.zeros(shape, bool)
        case _:
            return np.ones(shape, bool)
