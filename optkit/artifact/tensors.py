"""The contract of a model's inputs: names, dtypes, dimensions and their ranges, and the feeds that fit them.

The grammar of a specification is `name:dtype[dim,dim,...]`, where a dim is a number or the name of a dynamic dimension:
`image:float32[batch,3,224,224]`. The range of a named dimension is `min:opt:max`, as in an optimization profile. This is what a person types;
names that are read from files, such as `onnx::MatMul_12` and `past + 1`, need only be printable (`optkit.untrusted.names`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from optkit.errors import FeedError
from optkit.record import Record, faults
from optkit.untrusted.names import TensorName, name_text_fault
from optkit.untrusted.quoting import shell_line, yaml_text

if TYPE_CHECKING:
    import numpy as np

Dim = int | str
Feed = Mapping[str, "np.ndarray"]
Sizes = Mapping[str, int]  # named dimension -> its size at one point

_NAME = r"[A-Za-z_][\w.]*"
_SPEC = re.compile(rf"^\s*(?:(?P<name>{_NAME})\s*:\s*)?(?P<dtype>\w+)\s*\[(?P<dims>[^\[\]]*)\]\s*$")
_RANGE = re.compile(r"^\s*(\d+)\s*:\s*(\d+)\s*:\s*(\d+)\s*(?::\s*(\d+)\s*)?$")


class DType(StrEnum):
    """The element types that a feed may have, by their numpy names."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    FLOAT64 = "float64"
    INT64 = "int64"
    INT32 = "int32"
    INT16 = "int16"
    INT8 = "int8"
    UINT8 = "uint8"
    BOOL = "bool"

    @property
    def numpy(self) -> "np.dtype[np.generic]":
        """The numpy dtype."""
        import numpy as np

        return np.dtype(self.value)

    @property
    def is_float(self) -> bool:
        """Whether the type is a floating-point type."""
        return self.value.startswith("float")


class TensorSpec(Record):
    """The name, dtype and shape of one input or output; a str in `shape` is a dynamic dimension."""

    name: TensorName
    dtype: DType
    shape: tuple[Dim, ...]

    @field_validator("shape")
    @classmethod
    def _dims_are_positive_or_named(cls, shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
        for dim in shape:
            if isinstance(dim, int) and dim < 1:
                raise ValueError(f"dimension {dim}: must be 1 or more, or a name such as 'batch' if it varies")
            if isinstance(dim, str) and (fault := name_text_fault(dim)):
                raise ValueError(f"dimension: {fault}")
        return shape

    @classmethod
    def parse(cls, text: str, name: str | None = None) -> Self:
        """Read `name:dtype[dims]`, or `dtype[dims]` when `name` is given.

        Raises:
            ValueError: the text does not follow the grammar; the message has an example.
        """
        form = "dtype[dim,...]" if name else "name:dtype[dim,...]"
        example = "float32[batch,3,224,224]" if name else "image:float32[batch,3,224,224]"
        match = _SPEC.match(text)
        if not match or bool(match["name"]) == bool(name):
            raise ValueError(f"{text!r} is not a tensor specification; expected {form}, as in {example}")
        if match["dtype"] not in set(DType):
            raise ValueError(f"{text!r}: unknown dtype {match['dtype']!r}; expected one of {', '.join(DType)}")
        dims = [part.strip() for part in match["dims"].split(",")] if match["dims"].strip() else []
        for dim in dims:
            if not re.fullmatch(rf"\d+|{_NAME}", dim):
                raise ValueError(
                    f"{text!r}: dimension {dim!r} is neither a number nor a name; expected as in {example}"
                )
        try:
            return cls(
                name=name or match["name"],
                dtype=DType(match["dtype"]),
                shape=tuple(int(dim) if dim.isdigit() else dim for dim in dims),
            )
        except ValidationError as e:
            raise ValueError(f"{text!r}: {'; '.join(faults(e))}") from e

    def __str__(self) -> str:
        return f"{self.name}:{self.type_text}"

    @property
    def type_text(self) -> str:
        """The specification without its name."""
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"

    def shape_at(self, sizes: Sizes) -> tuple[int, ...]:
        """Return the shape with every named dimension replaced by its size."""
        return tuple(dim if isinstance(dim, int) else sizes[dim] for dim in self.shape)


class DimRange(Record):
    """The smallest, most common and largest size of a named dimension: 1 <= min <= opt <= max.

    With `multiple_of` only its multiples are valid sizes, as for images that a model halves five times.
    """

    min: int
    opt: int
    max: int
    multiple_of: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 1 <= self.min <= self.opt <= self.max:
            raise ValueError(f"min {self.min}, opt {self.opt}, max {self.max}; expected 1 <= min <= opt <= max")
        odd = [n for n in (self.min, self.opt, self.max) if n % self.multiple_of]
        if odd:
            raise ValueError(
                f"{odd[0]} is not a multiple of {self.multiple_of}; multiple_of requires it of min, opt and max"
            )
        return self

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `min:opt:max`, or `min:opt:max:multiple_of`.

        Raises:
            ValueError: the text does not follow the grammar, or the numbers are not ordered.
        """
        match = _RANGE.match(text)
        if not match:
            raise ValueError(f"{text!r} is not a range; expected min:opt:max, as in 1:8:64")
        low, usual, high, multiple = (int(number) for number in match.groups(default="1"))
        return cls(min=low, opt=usual, max=high, multiple_of=multiple)

    def odd_point(self) -> int | None:
        """Return an odd multiple strictly inside the range, different from min, opt and max; None where there is none.

        Exporters and kernels are often correct only for even or round sizes; an odd size shows it. Where possible it is between min and
        opt: a larger one would show no more than max does, and take most of the time of a check.
        """
        step = self.multiple_of
        middles = (self.min + self.opt) // 2 // step, (self.opt + self.max) // 2 // step
        near = (n * step for middle in middles for k in range(4) for n in (middle + k, middle - k) if n % 2)
        return next((n for n in near if self.min < n < self.max and n != self.opt), None)

    def small(self, rank: int) -> int:
        """Return a small size of the range, above 1 if possible; each rank gives another size if possible."""
        first = max(self.min, 2 if self.multiple_of == 1 else self.multiple_of)
        return min(self.max, first + rank * self.multiple_of)


def dim_option(dim: str, usual: str = "1:8:64") -> str:
    """Return the option that declares the range of a dimension, for a shell, whatever its name is."""
    return shell_line("--dim", f"{dim}={usual}")


def dimension_faults(inputs: Sequence[TensorSpec], dims: Mapping[str, DimRange]) -> list[str]:
    """Return a fault for each named dimension without a range, each range without an input, and each repeated input."""
    used = {dim for spec in inputs for dim in spec.shape if isinstance(dim, str)}
    faults = [
        f"dimension {dim!r}: used by an input but has no range; declare it, with {dim_option(dim)}, or as {yaml_text(dim)}: "
        f"{{min: 1, opt: 8, max: 64}} in a recipe"
        for dim in sorted(used - set(dims))
    ]
    faults += [
        f"dimension {dim!r}: has a range but no input uses it; the inputs use {', '.join(sorted(used)) or 'none'}"
        for dim in sorted(set(dims) - used)
    ]
    names = [spec.name for spec in inputs]
    faults += [f"input {name!r}: declared twice" for name in sorted({n for n in names if names.count(n) > 1})]
    return faults


def corners(dims: Mapping[str, DimRange]) -> list[dict[str, int]]:
    """Return the points at which a model is checked.

    All dimensions together at opt, min, max and their odd point, then each alone at its own min and max with the others
    at opt. A model without dynamic dimensions has one point.
    """
    opt = {name: r.opt for name, r in dims.items()}
    points = [opt]
    points += [{name: r.min for name, r in dims.items()}, {name: r.max for name, r in dims.items()}]
    points += [{name: r.odd_point() or r.opt for name, r in dims.items()}]
    for name, r in dims.items():
        points += [opt | {name: size} for size in (r.min, r.max)]
    unique: list[dict[str, int]] = []
    for point in points:
        if point not in unique:
            unique.append(point)
    return unique


def example_sizes(dims: Mapping[str, DimRange], turn: int = 0) -> dict[str, int]:
    """Return example sizes for an exporter: small, above 1, and different for every dimension where the ranges allow it.

    Exporters treat sizes 0 and 1 as constants, and equal sizes as one dimension. Another turn gives other sizes.
    """
    return {name: r.small(turn + i) for i, (name, r) in enumerate(dims.items())}


def batch_dim(inputs: Iterable[TensorSpec]) -> str | None:
    """Return the named dimension that comes first in every input, or None when they share none."""
    firsts = {spec.shape[0] if spec.shape else None for spec in inputs}
    only = firsts.pop() if len(firsts) == 1 else None
    return only if isinstance(only, str) else None


def check_feed(feed: Feed, inputs: Sequence[TensorSpec], dims: Mapping[str, DimRange] | None = None) -> dict[str, int]:
    """Check that a feed fits the declared inputs.

    Args:
        feed: input name -> array.
        inputs: the inputs of the model.
        dims: if given, the sizes must be within these ranges.

    Returns:
        named dimension -> its size in this feed.

    Raises:
        FeedError: a name, dtype, shape or size does not fit.
    """
    names = [spec.name for spec in inputs]
    if set(feed) != set(names):
        raise FeedError(f"feed: got inputs {', '.join(sorted(feed)) or 'none'}; the model takes {', '.join(names)}")
    sizes: dict[str, int] = {}
    for spec in inputs:
        _check_array(feed[spec.name], spec, sizes)
    for name, allowed in (dims or {}).items():
        size = sizes.get(name, allowed.opt)
        if not allowed.min <= size <= allowed.max:
            raise FeedError(f"dimension {name!r}: got {size}; declared {allowed.min} to {allowed.max}")
    return sizes


def _check_array(array: object, spec: TensorSpec, sizes: dict[str, int]) -> None:
    """Check one array and add the sizes of its named dimensions to `sizes`."""
    import numpy as np

    if not isinstance(array, np.ndarray):
        raise FeedError(f"input {spec.name!r}: got {type(array).__name__}; expected a numpy array {spec.type_text}")
    found = f"{array.dtype}[{','.join(map(str, array.shape))}]"
    if array.dtype != spec.dtype.numpy:
        hint = f"Cast the feed to {spec.dtype}."
        raise FeedError(f"input {spec.name!r}: got {found}; the model takes {spec.type_text}. {hint}")
    fits = array.ndim == len(spec.shape) and all(
        size > 0 and (sizes.setdefault(dim, size) if isinstance(dim, str) else dim) == size
        for dim, size in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        known = ", ".join(f"{name}={size}" for name, size in sizes.items() if name in spec.shape)
        raise FeedError(
            f"input {spec.name!r}: got {found}; the model takes {spec.type_text}{f' with {known}' if known else ''}"
        )
