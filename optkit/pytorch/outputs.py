"""The outputs of an nn.Module: their names, dtypes and dimensions, found by running it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from optkit.artifact import RandomValues
from optkit.artifact.tensors import Dim, DimRange, DType, TensorSpec
from optkit.data import Feeds, Samples
from optkit.data.random_values import candidates
from optkit.errors import ModelError
from optkit.pytorch.forward import ForwardFailed, call_forward, flatten, is_plain, run_forward
from optkit.untrusted.names import name_text_fault

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass(frozen=True)
class Outputs:
    """The flattened outputs of a module; `plain` when every exporter supports their types."""

    specs: tuple[TensorSpec, ...]
    plain: bool
    random: RandomValues | None = None  # what the model needs in the place of the usual random values


def find_outputs(
    module: "torch.nn.Module",
    inputs: Sequence[TensorSpec],
    dims: Mapping[str, DimRange],
    names: tuple[str, ...] | None = None,
    real: Feeds | None = None,
) -> Outputs:
    """Find the outputs and their dimensions: run the module with different sizes of the named dimensions.

    Args:
        module: in evaluation mode.
        inputs: its inputs.
        dims: the ranges of the named dimensions.
        names: other names for the outputs, in order.
        real: real samples, which are run in the place of random values.

    Raises:
        ModelError: forward raises, its outputs differ for the same input, their names or ranks change with the sizes, or `names` are
            too few, too many, or names of inputs.
    """
    first: ForwardFailed | None = None
    undefined: Outputs | None = None
    for values in (None,) if real is not None else candidates(inputs):
        if first and values and values.floats == "positive":
            continue  # this helps where an output is NaN, as of a logarithm
        try:
            found, has_nan = _find(module, dims, names, Samples(inputs, dims, real, values))
        except ForwardFailed as e:
            first = first or e
            continue
        found = dataclasses.replace(found, random=None if values == RandomValues() else values)
        if not has_nan or real is not None:
            return found
        undefined = undefined or found
        if first is None and not any(spec.dtype.is_float for spec in inputs):
            break
    if undefined:
        return undefined
    if first is None:
        raise AssertionError("no values were tried")
    if real is None and any(not spec.dtype.is_float for spec in inputs):
        raise ModelError(
            f"{str(first).rstrip('.')}. Other random values failed too; give real samples with --data"
        ) from first
    raise first


def _find(
    module: "torch.nn.Module", dims: Mapping[str, DimRange], names: tuple[str, ...] | None, samples: Samples
) -> tuple[Outputs, bool]:
    """Find the outputs with these samples, and whether an output has NaN."""
    import torch

    inputs = samples.inputs
    points = [_distinct(dims, 0), _distinct(dims, 1)]
    before, drawn = _state(module), torch.get_rng_state()
    returned = call_forward(module, inputs, samples.at(points[0]))
    first = dict(flatten(returned))
    changed = _changed(before, _state(module))
    # Random outputs may agree by chance, for example dropout on a few elements: if random numbers were drawn, run more often.
    turns = (1, 0) if torch.equal(drawn, torch.get_rng_state()) else (1, *[0] * _RANDOM_CALLS)
    try:
        second, *others = (run_forward(module, inputs, samples.at(points[turn])) for turn in turns)
    except ModelError as e:
        if not changed:
            raise
        raise ModelError(f"the second {e!s} {_keeps_state(changed)}") from e
    if not all(
        set(first) == set(again) and all(_close(a, again[name]) for name, a in first.items()) for again in others
    ):
        raise ModelError(
            "forward gives different outputs for the same input, so parity cannot be checked"
            f"{f'. {_keeps_state(changed)}' if changed else _RANDOM}"
        )
    if set(first) != set(second):
        raise ModelError(f"forward returns {', '.join(first)} at one size and {', '.join(second)} at another")
    names = names or _names_beside(inputs, tuple(first))
    _check_names(names, tuple(first), inputs)
    specs = []
    for name, (found, a) in zip(names, first.items(), strict=True):
        b = second[found]
        if a.dim() != b.dim():
            raise ModelError(f"output {name!r}: has {a.dim()} dimensions at one size and {b.dim()} at another")
        shape = tuple(_dim(f"{name}_dim_{i}", a.shape[i], b.shape[i], points) for i in range(a.dim()))
        specs.append(TensorSpec(name=name, dtype=_dtype(name, a), shape=shape))
    has_nan = any(tensor.is_floating_point() and bool(tensor.isnan().any()) for tensor in first.values())
    return Outputs(tuple(specs), is_plain(returned)), has_nan


_RANDOM_CALLS = 16  # runs of a forward that draws random numbers
_RANDOM = "; expected a model in evaluation mode. Look for dropout with training=True, or random numbers in forward."


def _keeps_state(changed: Sequence[str]) -> str:
    """Return the sentence for a forward that changes attributes of the module; empty when it changes none."""
    if not changed:
        return ""
    return (
        f"It keeps state between calls in {', '.join(f'self.{name}' for name in changed[:4])}: make it an input and "
        f"an output of forward, or reset it in each call."
    )


def _state(module: "torch.nn.Module") -> dict[str, tuple[object, object]]:
    """Return all attributes and buffers of a module and its submodules: each object, and a value that changes with its content."""
    import torch

    state: dict[str, tuple[object, object]] = {}
    if isinstance(module, torch.jit.ScriptModule):
        return state
    for path, part in module.named_modules():
        for name, value in {**vars(part), **part._buffers, **part._parameters}.items():
            if isinstance(value, torch.Tensor):
                mark: object = None if value.is_inference() else value._version
            else:
                mark = len(value) if isinstance(value, (list, dict, set)) else None
            state[f"{path}.{name}" if path else name] = (value, mark)
    return state


def _changed(before: Mapping[str, tuple[object, object]], after: Mapping[str, tuple[object, object]]) -> list[str]:
    new = object()
    return [
        name
        for name, (a, mark) in after.items()
        if before.get(name, (new, mark))[0] is not a or before[name][1] != mark
    ]


def _names_beside(inputs: Sequence[TensorSpec], found: tuple[str, ...]) -> tuple[str, ...]:
    """Return names for the outputs that differ from the names of inputs, because a graph needs unique names."""
    taken = {spec.name for spec in inputs}
    return tuple(f"{name}_output" if name in taken else name for name in found)


def _check_names(names: Sequence[str], found: Sequence[str], inputs: Sequence[TensorSpec]) -> None:
    if len(names) != len(found):
        raise ModelError(
            f"outputs: {len(names)} names given ({', '.join(names)}), but forward returns {', '.join(found)}"
        )
    faults = [fault for name in names if (fault := name_text_fault(name))]
    if faults:
        raise ModelError(f"outputs: {faults[0]}. Give others with --output-name, one for each of them, in order")
    twice = {name for name in names if list(names).count(name) > 1} | {spec.name for spec in inputs} & set(names)
    if twice:
        raise ModelError(
            f"outputs: the name {', '.join(map(repr, sorted(twice)))} is used for two tensors (inputs included); expected unique names. "
            f"Give others with --output-name, one for each of {', '.join(found)}, in this order"
        )


def _close(a: "torch.Tensor", b: "torch.Tensor") -> bool:
    """Whether two outputs are equal within rounding; NaN is accepted here, parity refuses it."""
    import torch

    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-3, atol=1e-4, equal_nan=True)


def _distinct(dims: Mapping[str, DimRange], turn: int) -> dict[str, int]:
    """Return sizes that differ between the two turns if the range allows it, with another step for each dimension.

    The different steps distinguish, for example, an output dimension `sequence - 1` from `batch`.
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
