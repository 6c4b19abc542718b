"""The forward of an nn.Module: the passing of its inputs, and its outputs as named tensors."""

import contextlib
import dataclasses
import inspect
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optkit import user_code
from optkit.artifact.tensors import Feed, TensorSpec
from optkit.errors import ModelError

if TYPE_CHECKING:
    import torch


class ForwardFailed(ModelError):
    """The forward of a module raised on some values."""


@dataclasses.dataclass(frozen=True)
class Call:
    """The arguments of forward: positional inputs, then keyword inputs."""

    positional: tuple[TensorSpec, ...]
    keyword: tuple[TensorSpec, ...] = ()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """All inputs, in the order of the call."""
        return (*self.positional, *self.keyword)

    def arguments(
        self, tensors: "Mapping[str, torch.Tensor]"
    ) -> "tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]":
        """Return the positional and the keyword arguments, from tensors by input name."""
        args = tuple(tensors[spec.name] for spec in self.positional)
        return args, {spec.name: tensors[spec.name] for spec in self.keyword}


def forward_call(module: "torch.nn.Module", inputs: Sequence[TensorSpec]) -> Call:
    """Return the call of a module with these inputs.

    If all names are parameters of forward, inputs are passed by name: positional up to the first missing parameter, then by keyword.
    Otherwise all inputs are positional.

    Raises:
        ModelError: a required parameter is missing, there are too many inputs, or an input has the name of a parameter at another
            position, so inputs would be swapped.
    """
    parameters = _parameters(module)
    if parameters is None:
        return Call(tuple(inputs))
    names = [spec.name for spec in inputs]
    known = {p.name for p in parameters}
    required = [p.name for p in parameters if p.default is p.empty]
    if set(names) <= known:
        missing = [name for name in required if name not in names]
        if missing:
            raise ModelError(
                f"forward also takes {', '.join(map(repr, missing))} without a default; expected an input for each. Declare it"
            )
        return _by_name(parameters, {spec.name: spec for spec in inputs})
    positional = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    takes = f"forward takes {', '.join(p.name for p in parameters)}"
    if not len([name for name in required if name in positional]) <= len(names) <= len(positional):
        nested = (
            " If a parameter takes nested tensors, name each with dots, as past_key_values.0.1."
            if len(names) > len(positional)
            else ""
        )
        raise ModelError(
            f"{len(names)} inputs are declared ({', '.join(names)}), but {takes}{f'.{nested}' if nested else ''}"
        )
    for position, name in enumerate(names):
        if name in known and positional.index(name) != position:
            raise ModelError(
                f"input {name!r}: declared as number {position + 1}, but {takes}. Declare the inputs in the order of forward, "
                f"or use the names of its parameters for all of them."
            )
    return Call(tuple(inputs))


def takes_keywords(module: "torch.nn.Module") -> bool:
    """Whether forward has keyword-only parameters."""
    return any(p.kind is p.KEYWORD_ONLY for p in _parameters(module) or ())


def parameter_names(module: "torch.nn.Module") -> list[str]:
    """Return the names of the parameters of forward; empty where they are not known."""
    return [p.name for p in _parameters(module) or ()]


def required_names(module: "torch.nn.Module") -> list[str]:
    """Return the names of the parameters of forward without a default."""
    return [p.name for p in _parameters(module) or () if p.default is p.empty]


def _parameters(module: "torch.nn.Module") -> "list[inspect.Parameter] | None":
    """Return the parameters of forward; None where they are not known: with *args, and in files traced from such a forward."""
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        return _script_parameters(module)
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return [p for p in parameters if p.kind is not p.VAR_KEYWORD]


def _script_parameters(module: "torch.jit.ScriptModule") -> "list[inspect.Parameter] | None":
    schema = getattr(module.forward, "schema", None)
    if schema is None:
        return None
    kind, empty = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty
    return [
        inspect.Parameter(a.name, kind, default=a.default_value if a.has_default_value() else empty)
        for a in schema.arguments[1:]  # the first one is the module itself
    ]


def _by_name(parameters: "Sequence[inspect.Parameter]", specs: Mapping[str, TensorSpec]) -> Call:
    positional: list[TensorSpec] = []
    for parameter in parameters:
        if parameter.name not in specs or parameter.kind is parameter.KEYWORD_ONLY:
            break
        positional.append(specs[parameter.name])
    rest = [p.name for p in parameters[len(positional) :] if p.name in specs]
    return Call(tuple(positional), tuple(specs[name] for name in rest))


def dynamic_axes(spec: TensorSpec) -> dict[int, str]:
    """Return axis -> name of the dynamic dimensions, in the exporters' format."""
    return {axis: dim for axis, dim in enumerate(spec.shape) if isinstance(dim, str)}


def flatten(output: Any, name: str = "output") -> Iterator[tuple[str, "torch.Tensor"]]:
    """Yield the output tensors with names: `output` for one, `output_0`... for a tuple, the keys of a mapping, nested with dots.

    Raises:
        ModelError: the output is not made of tensors, sequences, mappings and dataclasses.
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
            if value is not None:
                yield from flatten(value, f"{prefix}{field}")
    else:
        raise ModelError(
            f"forward returned a {type(output).__name__} in {name!r}; expected tensors, or tuples and dicts of them"
        )


def is_plain(output: object) -> bool:
    """Whether every exporter supports an output: tensors, and tuples, lists and dicts of a type that torch knows."""
    import torch
    from torch.utils import _pytree

    if output is None or isinstance(output, torch.Tensor):
        return True
    if isinstance(output, dict):
        return type(output) in _pytree.SUPPORTED_NODES and all(map(is_plain, output.values()))
    return isinstance(output, (tuple, list)) and all(map(is_plain, output))


def returning_tuple(module: "torch.nn.Module") -> "torch.nn.Module":
    """Return a wrapper with the same arguments that returns the output tensors as one flat tuple."""
    import torch

    class ReturningTuple(torch.nn.Module):
        returns_tuple = True

        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *args: Any, **kwargs: Any) -> "tuple[torch.Tensor, ...]":
            return tuple(tensor for _, tensor in flatten(self.module(*args, **kwargs)))

    called = inspect.signature(module.forward)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    # Callers such as torch.export read the signature to pass the inputs.
    ReturningTuple.forward.__signature__ = called.replace(parameters=[own, *called.parameters.values()])  # type: ignore[attr-defined]
    return ReturningTuple().eval()


def nested_names(module: "torch.nn.Module", inputs: Sequence[TensorSpec]) -> tuple[str, ...]:
    """Return the names of all inputs if one is a part of a nested parameter, as `past_key_values.0.1`; else none."""
    heads = {spec.name.partition(".")[0] for spec in inputs if "." in spec.name}
    return tuple(spec.name for spec in inputs) if heads and heads <= set(parameter_names(module)) else ()


def taking_flat(module: "torch.nn.Module", names: Sequence[str]) -> "torch.nn.Module":
    """Return a wrapper that takes flat tensors and passes them nested: numbers in a name make tuples, other words make dicts."""
    import torch

    class TakingFlat(torch.nn.Module):
        takes_flat = True

        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: "torch.Tensor") -> Any:
            tree: dict[str, Any] = {}
            for name, tensor in zip(names, tensors, strict=True):
                *parents, last = name.split(".")
                place = tree
                for parent in parents:
                    place = place.setdefault(parent, {})
                place[last] = tensor
            return self.module(**{name: _nest(value) for name, value in tree.items()})

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    own = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)]
    own += [inspect.Parameter(re.sub(r"\W", "_", f"flat_{name}"), kind) for name in names]
    TakingFlat.forward.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
    return TakingFlat().eval()


def _nest(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inner = {key: _nest(part) for key, part in value.items()}
    return tuple(inner[str(i)] for i in range(len(inner))) if set(inner) == set(map(str, range(len(inner)))) else inner


def run_forward(module: "torch.nn.Module", inputs: Sequence[TensorSpec], feed: Feed) -> dict[str, "torch.Tensor"]:
    """Run one forward on a feed without gradients; output name -> tensor on the module's device.

    Raises:
        ModelError: forward raises (the message has the user's line), or returns anything but tensors.
    """
    return dict(flatten(call_forward(module, inputs, feed)))


def call_forward(module: "torch.nn.Module", inputs: Sequence[TensorSpec], feed: Feed) -> object:
    """Run one forward on a feed without gradients, and return its output.

    Raises:
        ForwardFailed: forward raises; the message has the user's line.
    """
    import torch

    parameter = next(module.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    tensors = {spec.name: torch.from_numpy(feed[spec.name]).to(device) for spec in inputs}
    args, kwargs = forward_call(module, inputs).arguments(tensors)
    try:
        with torch.inference_mode(), plain_attention(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return module(*args, **kwargs)
    except Exception as e:
        shapes = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in feed.items())
        weights = sorted({str(p.dtype).removeprefix("torch.") for p in module.parameters()})
        of = f", weights {' and '.join(weights)}" if weights else ""
        hint = (
            " Return model.float() from the factory, or declare inputs of that dtype."
            if set(weights) - {"float32"}
            else ""
        )
        raise ForwardFailed(f"forward raised {user_code.describe(e)} (with {shapes}{of}).{hint}") from e


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Switch off PyTorch's fast path for nn.TransformerEncoder, whose nested tensors no exporter can write.

    It gives zeros where a padding mask ignores a position, and other models and files compute something there.
    """
    import torch

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def torchscript_notices_off() -> Iterator[None]:
    """Suppress torch's notice at every use that TorchScript is deprecated since 2.11; the README says it once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\..*` is (deprecated|not supported)")
        yield
