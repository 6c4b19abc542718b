"""The forward of an nn.Module: the order of its inputs, its outputs as named tensors, and their specifications."""

import contextlib
import dataclasses
import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optkit import user_code
from optkit.data import random_feed
from optkit.errors import ModelError
from optkit.tensors import Dim, DimRange, DType, Feed, TensorSpec

if TYPE_CHECKING:
    import torch


def forward_order(module: "torch.nn.Module", inputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Return the inputs in the order in which forward takes them.

    Names that are parameters of forward decide; names that are not are taken by position.

    Raises:
        ModelError: forward has a parameter of that name at another position, so the inputs would be swapped.
    """
    try:
        parameters = list(inspect.signature(module.forward).parameters)
    except (TypeError, ValueError):  # a ScriptModule has no Python signature
        return tuple(inputs)
    names = [spec.name for spec in inputs]
    if set(names) <= set(parameters):
        ordered = tuple(sorted(inputs, key=lambda spec: parameters.index(spec.name)))
        if [spec.name for spec in ordered] == parameters[: len(ordered)]:
            return ordered
    for position, name in enumerate(names):
        if name in parameters and parameters.index(name) != position:
            raise ModelError(
                f"input {name!r}: declared as number {position + 1}, but forward({', '.join(parameters)}) takes it as "
                f"number {parameters.index(name) + 1}. Declare the inputs in the order of forward, or name them all as it does."
            )
    return tuple(inputs)


def flatten(output: Any, name: str = "output") -> Iterator[tuple[str, "torch.Tensor"]]:
    """Yield the tensors that a forward returned: one is `output`, a tuple `output_0`..., a mapping its keys, nested with dots.

    Raises:
        ModelError: something else than tensors, sequences, mappings and dataclasses of them was returned.
    """
    import torch

    prefix = "" if name == "output" else f"{name}."
    if isinstance(output, torch.Tensor):
        yield name, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from flatten(value, f"{prefix}{key}")
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        for field in dataclasses.fields(output):
            if getattr(output, field.name) is not None:
                yield from flatten(getattr(output, field.name), f"{prefix}{field.name}")
    elif isinstance(output, (tuple, list)):
        fields = getattr(output, "_fields", [f"{name}_{i}" if not prefix else str(i) for i in range(len(output))])
        for field, value in zip(fields, output, strict=True):
            yield from flatten(value, f"{prefix}{field}")
    else:
        raise ModelError(
            f"forward returned a {type(output).__name__} in {name!r}; expected tensors, or tuples and dicts of them"
        )


def run_forward(module: "torch.nn.Module", inputs: Sequence[TensorSpec], feed: Feed) -> dict[str, "torch.Tensor"]:
    """Run one forward on a feed without gradients; output name -> tensor on the module's device.

    Raises:
        ModelError: forward raises; names the user's line.
    """
    import torch

    parameter = next(module.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    tensors = [torch.from_numpy(feed[spec.name]).to(device) for spec in forward_order(module, inputs)]
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dict(flatten(module(*tensors)))
    except ModelError:
        raise
    except Exception as e:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
        raise ModelError(f"forward raised {user_code.describe(e)} (with {shapes})") from e


def baked_in_notes(caught: Sequence[warnings.WarningMessage]) -> list[str]:
    """Return a note for each place where a tracer turned a value of the example into a constant."""
    import torch

    notes = [
        f"{w.filename}:{w.lineno}: the trace baked in a value: {str(w.message).splitlines()[0]}"
        for w in caught
        if issubclass(w.category, torch.jit.TracerWarning)
    ]
    return list(dict.fromkeys(notes))


@contextlib.contextmanager
def torchscript_notices_off() -> Iterator[None]:
    """Keep away torch's notice, at every use, that TorchScript is deprecated since 2.11; the README says it once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\..*` is (deprecated|not supported)")
        yield


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
    """Return sizes inside the ranges: small ones, different for each dimension where the ranges allow it."""
    sizes: dict[str, int] = {}
    for i, (name, r) in enumerate(dims.items()):
        sizes[name] = min(r.max, max(r.min, 2 + turn) + i)
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
