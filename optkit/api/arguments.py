"""Conversion of the arguments of `optkit` functions: objects in memory, or the same text that the command line takes."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

from pydantic import ValidationError

from optkit import user_code
from optkit.artifact import Artifact, Passport, Precision
from optkit.artifact.findings import Tolerance
from optkit.artifact.tensors import DimRange, Feed, TensorSpec, dim_option
from optkit.checks import Requirements
from optkit.data import Samples, absolute_data
from optkit.errors import FeedError, ModelError, RecipeError
from optkit.progress import Sink, reporting
from optkit.pytorch.source import forget_modules, make_source, open_passport
from optkit.record import Record, faults
from optkit.runners import Device
from optkit.untrusted.names import name_text_fault
from optkit.untrusted.paths import user_path

if TYPE_CHECKING:
    import numpy as np

R = TypeVar("R", bound=Record)

StrPath = str | os.PathLike[str]
Scalar = str | int | float | bool | None
Inputs = Mapping[str, str | TensorSpec] | Sequence[str | TensorSpec]
Dims = Mapping[str, DimRange | str | Sequence[int]]
Data = StrPath | Iterable[Any] | Callable[[], Iterable[Any]]
ToFeed = Callable[[Any], Any]
Predict = Callable[[Feed], "dict[str, np.ndarray]"]
Evaluate = str | Callable[[Predict], float]
ModelFile = StrPath | Passport | Artifact
Model = "torch.nn.Module | StrPath"
_ORT_TRANSFORMERS = f"onnxruntime{os.sep}transformers"

Progress = Callable[[str, int, int | None], None]  # description, iterations done, total; None if it is unknown


class Call:
    """One call of an `optkit` function. It registers objects in memory under targets, which are valid until the call ends."""

    def __init__(self, name: Callable[[object, str], str]) -> None:
        self._name = name

    def model(self, model: object) -> str:
        """Return the target of a module in memory, or a source (text or path) as text.

        Raises:
            ModelError: `model` is neither a module nor a source.
        """
        if isinstance(model, (str, os.PathLike)):
            return os.path.expanduser(os.fspath(model))  # noqa: PTH111 - a source need not be a path
        import torch

        if not isinstance(model, torch.nn.Module):
            raise ModelError(
                f"model: is a {type(model).__name__}; expected a torch.nn.Module, or a source such as 'model.py:build'"
            )
        return self._name(model, type(model).__name__)

    def data(self, data: Data | None, to_feed: ToFeed | None = None) -> str | None:
        """Return the target of data in memory, or a data source (text or path) with its path made absolute; None for None.

        Args:
            data: iterable of feeds, function that returns one, or data source as the command line takes it.
            to_feed: function that converts one item of `data` to a feed, for example a batch of a DataLoader with labels.
        """
        if data is None:
            return None
        if isinstance(data, (str, os.PathLike)):
            if to_feed is not None:
                raise FeedError(
                    "to_feed: applies only to data in memory; a data source in a file yields feeds. Omit it."
                )
            return absolute_data(os.path.expanduser(os.fspath(data)), Path())  # noqa: PTH111
        if not (callable(data) or isinstance(data, Iterable)):
            raise FeedError(
                f"data: is a {type(data).__name__}; expected an iterable of feeds, or a function that returns one"
            )
        title = getattr(data, "__name__", type(data).__name__)
        return self._name(_ConvertedItems(data, to_feed) if to_feed is not None else data, title)

    def function(self, function: Evaluate | None) -> str | None:
        """Return the target of a function in memory, or a target (text) with its path made absolute; None for None.

        Raises:
            ModelError: `function` is neither a function nor text.
        """
        if function is None:
            return None
        if isinstance(function, str):
            return user_code.absolute_target(function, Path())
        if not callable(function):
            raise ModelError(f"evaluate: is a {type(function).__name__}; expected a function that takes predict")
        return self._name(function, getattr(function, "__name__", type(function).__name__))

    def example(self, example: object) -> str | None:
        """Return the target of example inputs in memory, or a target (text) with its path made absolute; None for None."""
        if example is None or isinstance(example, str):
            return user_code.absolute_target(example, Path()) if example else None
        return self._name(example, "example")


@contextlib.contextmanager
def call(progress: Progress | None = None) -> Iterator[Call]:
    """Start a call; when it ends, no object of the caller is kept.

    Args:
        progress: callback for the progress of long loops; None keeps the sink that is installed already.
    """
    with user_code.in_memory() as name, _reporting(progress), _restored_sys_path():
        try:
            yield Call(name)
        finally:
            forget_modules()


@contextlib.contextmanager
def _restored_sys_path() -> Iterator[None]:
    """Remove from `sys.path` the folder that onnxruntime.transformers appends when it is imported.

    The package is removed from `sys.modules` too: its next import appends the folder again, which its other modules need.
    """
    before = set(sys.path)
    try:
        yield
    finally:
        added = [folder for folder in sys.path if folder not in before and folder.endswith(_ORT_TRANSFORMERS)]
        if added:
            sys.path[:] = [folder for folder in sys.path if folder not in added]
            sys.modules.pop("onnxruntime.transformers", None)


def _reporting(progress: Progress | None) -> contextlib.AbstractContextManager[None]:
    return reporting(_Callback(progress)) if progress else contextlib.nullcontext()


class _Callback(Sink):
    """A progress sink that calls a function of the caller; loops may be nested."""

    def __init__(self, function: Progress) -> None:
        self._function = function
        self._open: list[tuple[str, int, int | None]] = []

    def begin(self, description: str, total: int | None) -> None:
        self._open.append((description, 0, total))
        self._function(*self._open[-1])

    def advance(self) -> None:
        description, done, total = self._open[-1]
        self._open[-1] = (description, done + 1, total)
        self._function(*self._open[-1])

    def end(self) -> None:
        self._open.pop()


class _ConvertedItems:
    """An iterable that converts each item of the caller's data to a feed when it is read."""

    def __init__(self, items: Iterable[Any] | Callable[[], Iterable[Any]], to_feed: ToFeed) -> None:
        self._items = items
        self._to_feed = to_feed

    def __iter__(self) -> Iterator[Any]:
        items = self._items() if callable(self._items) else self._items
        return map(self._to_feed, items)

    def __length_hint__(self) -> int:
        return len(self._items) if isinstance(self._items, Sized) else 0


def as_inputs(inputs: Inputs | None, option: str = "--input") -> tuple[TensorSpec, ...]:
    """Parse inputs, either `{"image": "float32[batch,3,224,224]"}` or `["image:float32[batch,3,224,224]"]`; empty for None.

    Raises:
        RecipeError: an input has invalid syntax.
    """
    named = inputs.items() if isinstance(inputs, Mapping) else ((None, spec) for spec in inputs or ())
    try:
        return tuple(
            spec if isinstance(spec, TensorSpec) else TensorSpec.parse(str(spec), name=name) for name, spec in named
        )
    except ValueError as e:
        raise RecipeError(f"{option}: {e}") from e


def as_dims(dims: Dims | None) -> dict[str, DimRange]:
    """Parse ranges, either `{"batch": (1, 8, 64)}` or `{"batch": "1:8:64"}`; empty for None.

    Raises:
        RecipeError: a range has invalid syntax, or its numbers are not in ascending order.
    """
    found: dict[str, DimRange] = {}
    for name, value in (dims or {}).items():
        if fault := name_text_fault(name):
            raise RecipeError(f"--dim: {fault}")
        if isinstance(value, DimRange):
            found[name] = value
            continue
        text = value if isinstance(value, str) else ":".join(map(str, value))
        try:
            found[name] = DimRange.parse(text)
        except ValidationError as e:
            raise RecipeError(f"--dim {name}={text}: {'; '.join(faults(e)).removeprefix('document: ')}") from e
        except ValueError as e:
            raise RecipeError(f"--dim {name}={text}: {e}") from e
    return found


def pairs(option: str, items: Sequence[str] | None, *, last: bool = False) -> dict[str, str]:
    """Split name=value options at the first `=`, or with `last` at the last one, because a name may contain `=`.

    Raises:
        RecipeError: an option has no `=`, or a name is given twice.
    """
    found: dict[str, str] = {}
    for item in items or ():
        name, equals, value = item.rpartition("=") if last else item.partition("=")
        if not equals or not name:
            raise RecipeError(f"{option} {item}: expected name=value")
        if name in found:
            raise RecipeError(f"{option} {item}: {name!r} is given twice")
        found[name] = value
    return found


def settings(cls: type[R], **given: object) -> R:
    """Build a record from options.

    Raises:
        RecipeError: a value is invalid; the message names every invalid option.
    """
    try:
        return cls.model_validate(given)
    except ValidationError as e:
        lines = [line.removeprefix("document: ") for line in faults(e)]
        raise RecipeError("; ".join(_as_option(line) for line in lines)) from e


def _as_option(fault: str) -> str:
    """Return the fault of a key as a fault of the option that sets it."""
    key, colon, what = fault.partition(":")
    if colon:
        return f"--{key.replace('_', '-')}{colon}{what}"
    first, *words = fault.split(" ")  # a fault of several keys starts with one key and may name others
    return " ".join([f"--{first.replace('_', '-')}", *(f"--{w.replace('_', '-')}" if "_" in w else w for w in words)])


def as_device(device: str) -> Device:
    """Return the device with this name.

    Raises:
        RecipeError: there is no such device.
    """
    try:
        return Device(device)
    except ValueError as e:
        raise RecipeError(f"--device {device}: expected {' or '.join(Device)}") from e


def as_share(option: str, share: float | str | None) -> float | None:
    """Parse a fraction given as 0.05 or "5%".

    Raises:
        RecipeError: the text is not a number.
    """
    if share is None or not isinstance(share, str):
        return share
    number, percent, rest = share.strip().partition("%")
    try:
        return float(number) / (100 if percent else 1) if not rest else float(share)
    except ValueError as e:
        raise RecipeError(f"{option} {share}: expected a fraction, as in 5% or 0.05") from e


def as_tolerance(atol: float | None, rtol: float | None) -> Tolerance | None:
    """Return the tolerance from the options; None if neither is given, for the default of the precision."""
    return None if atol is None and rtol is None else settings(Tolerance, atol=atol or 0.0, rtol=rtol or 0.0)


def open_model_file(model: ModelFile, dims: Dims | None = None) -> Artifact:
    """Open a model file; see `open_model_passport`."""
    return open_model_passport(model, dims).artifact


def open_model_passport(model: ModelFile, dims: Dims | None = None) -> Passport:
    """Read the passport of a model file and check that every named dimension has a range.

    Raises:
        ArtifactError: the file is not a model file.
        RecipeError: a dimension has no range; the message has the options to add.
    """
    path = model_path(model)
    passport = open_passport(path, as_dims(dims))
    artifact = passport.artifact
    used = {dim for spec in artifact.inputs for dim in spec.shape if isinstance(dim, str)}
    missing, unknown = sorted(used - set(artifact.dims)), sorted(set(artifact.dims) - used)
    if missing:
        add = " ".join(map(dim_option, missing))
        raise RecipeError(f"{path}: no range is given for {', '.join(missing)}. Add {add} with your own numbers.")
    if unknown:
        raise RecipeError(
            f"--dim {unknown[0]}: no input of {path} uses it; they use {', '.join(sorted(used)) or 'none'}"
        )
    return passport


def is_model_file(model: object) -> TypeGuard[ModelFile]:
    """Whether a model is a model file that a runner can load; false for a module and for its source."""
    return isinstance(model, (Passport, Artifact, os.PathLike)) or (isinstance(model, str) and ":" not in model)


def model_path(model: ModelFile) -> Path:
    """Return the path of a model file, a passport or an artifact."""
    if isinstance(model, Passport):
        return model.artifact.path
    return model.path if isinstance(model, Artifact) else user_path(model)


def samples_of(artifact: Artifact, data: str | None) -> Samples:
    """Return the input values for an artifact; `data` is an absolute data source or a target in memory."""
    return Samples.of(data, artifact.inputs, artifact.dims, artifact.random)


@dataclass(frozen=True)
class SourceModel:
    """The source of a PyTorch model, and its contract."""

    target: str
    inputs: tuple[TensorSpec, ...] = ()
    dims: Mapping[str, DimRange] | None = None
    example: str | None = None
    outputs: tuple[str, ...] | None = None
    weights: Path | None = None
    weights_key: str | None = None
    args: Mapping[str, Scalar] | None = None
    data: str | None = None

    def make(self, folder: Path) -> Artifact:
        """Build the model and write its source artifact to a folder.

        Raises:
            ModelError: the model cannot be built or run, or does not match the contract.
        """
        return make_source(
            self.target,
            folder,
            self.inputs,
            self.dims,
            weights=self.weights,
            weights_key=self.weights_key,
            args=self.args,
            outputs=self.outputs,
            example=self.example,
            data=self.data,
        )


@dataclass(frozen=True)
class Verification:
    """The options for the verification of an artifact: data, evaluation function and limits."""

    data: str | None = None
    evaluate: str | None = None
    max_drop: float | None = None
    atol: float | None = None
    rtol: float | None = None
    device: str = "cpu"
    allow_batch_dependence: bool = False

    def requirements(self) -> Requirements:
        """Return the requirements for `Prover`."""
        tolerance = as_tolerance(self.atol, self.rtol)
        return Requirements(
            tolerances=dict.fromkeys(Precision, tolerance) if tolerance else {},
            evaluation=self.evaluate,
            device=as_device(self.device),
        )
