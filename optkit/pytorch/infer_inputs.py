"""The inputs of a model without declared inputs, inferred from its example inputs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optkit.artifact.tensors import Dim, DimRange, DType, TensorSpec
from optkit.errors import ModelError
from optkit.pytorch.forward import parameter_names
from optkit.record import Record, validation_error_as
from optkit.untrusted.quoting import yaml_text

if TYPE_CHECKING:
    import numpy as np
    import torch

_BATCH = DimRange(min=1, opt=8, max=64)


class InputContract(Record):
    """The inputs of a model, and the ranges of their named dimensions."""

    inputs: tuple[TensorSpec, ...]
    dims: dict[str, DimRange]

    def as_recipe(self) -> str:
        """Return the contract as lines of a recipe."""
        lines = ["inputs:", *(f"  {yaml_text(spec.name)}: {spec.type_text.replace(',', ', ')}" for spec in self.inputs)]
        if self.dims:
            lines.append("dims:")
        for name, r in self.dims.items():
            multiple = f", multiple_of: {r.multiple_of}" if r.multiple_of > 1 else ""
            lines.append(f"  {yaml_text(name)}: {{min: {r.min}, opt: {r.opt}, max: {r.max}{multiple}}}")
        return "\n".join(lines)


def infer_contract(example: object, module: "torch.nn.Module") -> InputContract:
    """Infer the contract from example inputs.

    One example is a mapping of input name to tensor or array, a tensor, or a tuple of tensors in the order of forward. Its first
    dimension is the batch when all inputs share it. A list of two or more examples also shows other dynamic dimensions: a dimension is
    dynamic when its size differs between examples. Dimensions that always agree share one name. The range is from the smallest to the
    largest size.

    Raises:
        ModelError: the example has another type, or the examples do not fit together.
    """
    examples = [_named(e, module) for e in (example if isinstance(example, list) else [example])]
    if not examples or not examples[0]:
        raise ModelError("example inputs: none given; expected a mapping of input name to tensor")
    first = examples[0]
    for other in examples[1:]:
        if {n: (a.dtype, a.ndim) for n, a in other.items()} != {n: (a.dtype, a.ndim) for n, a in first.items()}:
            raise ModelError("example inputs: the examples differ in names, dtypes or numbers of dimensions")
    names: dict[tuple[int, ...], str] = {}
    dims: dict[str, DimRange] = {}
    if all(a.ndim for a in first.values()) and all(len({len(a) for a in e.values()}) == 1 for e in examples):
        seen = tuple(len(next(iter(e.values()))) for e in examples)
        names[seen] = "batch"
        largest = max(_BATCH.max, *seen)
        dims["batch"] = DimRange(min=1, opt=min(_BATCH.opt, largest), max=largest)
    inputs = []
    for name, array in first.items():
        shape: list[Dim] = []
        for axis in range(array.ndim):
            seen = tuple(e[name].shape[axis] for e in examples)
            if axis == 0 and "batch" in dims:
                shape.append("batch")
            elif len(set(seen)) == 1:
                shape.append(seen[0])
            else:
                dim = names.setdefault(seen, f"{name}_{axis}")
                dims.setdefault(dim, DimRange(min=min(seen), opt=sorted(seen)[len(seen) // 2], max=max(seen)))
                shape.append(dim)
        with validation_error_as(ModelError, "example inputs", "Give them other names."):
            inputs.append(TensorSpec(name=name, dtype=_dtype(name, array), shape=tuple(shape)))
    return InputContract(inputs=tuple(inputs), dims=dims)


def _named(example: object, module: "torch.nn.Module") -> "dict[str, np.ndarray]":
    import numpy as np
    import torch

    if isinstance(example, Mapping):
        return dict(_parts((str(name), value) for name, value in example.items() if value is not None))
    values: Sequence[Any] = example if isinstance(example, tuple) else (example,)
    if not all(isinstance(value, (torch.Tensor, np.ndarray, Mapping, list, tuple)) for value in values):
        found = type(example).__name__
        raise ModelError(
            f"example inputs: are a {found}; expected a mapping of input name to tensor, or a tuple of tensors"
        )
    names = parameter_names(module) or [f"input_{i}" for i in range(len(values))]
    if len(names) < len(values):
        raise ModelError(f"example inputs: are {len(values)}, but forward takes {', '.join(names)}")
    return dict(_parts(zip(names, values, strict=False)))


def _parts(named: "Iterable[tuple[str, object]]") -> "Iterator[tuple[str, np.ndarray]]":
    """Yield each tensor by its name, with dots between the parts of a nested one, as `past_key_values.0.1`."""
    for name, value in named:
        if isinstance(value, Mapping):
            yield from _parts((f"{name}.{key}", part) for key, part in value.items())
        elif isinstance(value, (list, tuple)):
            yield from _parts((f"{name}.{i}", part) for i, part in enumerate(value))
        else:
            yield name, _array(value, name)


def _array(value: object, name: str) -> "np.ndarray":
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return value
    raise ModelError(f"example input {name!r}: is a {type(value).__name__}; expected a tensor or an array")


def _dtype(name: str, array: "np.ndarray") -> DType:
    if array.dtype.name not in set(DType):
        raise ModelError(f"example input {name!r}: is {array.dtype}; optkit handles {', '.join(DType)}")
    return DType(array.dtype.name)
