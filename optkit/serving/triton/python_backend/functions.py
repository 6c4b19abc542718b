"""A Python function as a model: its declared inputs and outputs, and a check that it fits them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from optkit import user_code
from optkit.artifact import Precision
from optkit.artifact.findings import BatchIndependence
from optkit.artifact.tensors import DimRange, Feed, TensorSpec, check_feed, corners
from optkit.checks import TOLERANCES, compare_batches, compare_outputs, nan_faults
from optkit.data import Samples
from optkit.errors import RunnerError, StageError
from optkit.progress import track
from optkit.serving.golden import Golden, golden_sizes

TOLERANCE = TOLERANCES[Precision.FP32]  # another machine may add numbers in a different order


@dataclasses.dataclass(frozen=True)
class FunctionModel:
    """A function `file.py:function` from input name -> array to output name -> array, with its declared inputs and outputs."""

    target: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dims: Mapping[str, DimRange]

    @property
    def title(self) -> str:
        """The name for messages."""
        return self.target.rpartition("/")[2]

    def infer(self, feed: Feed) -> dict[str, np.ndarray]:
        """Call the function with a copy of a feed.

        Raises:
            FeedError: the feed does not fit the inputs.
            RunnerError: the function failed, or its outputs do not fit the declaration.
            ModelError: the function cannot be imported.
        """
        sizes = check_feed(feed, self.inputs)
        function = user_code.load(self.target)
        given = called(function, self.title, {name: array.copy() for name, array in feed.items()}, self.outputs, sizes)
        return {name: np.ascontiguousarray(array) for name, array in given.items()}


def called(
    function: Callable[[Feed], Any],
    where: str,
    feed: Feed,
    outputs: Sequence[TensorSpec],
    sizes: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Call the user's function and check its outputs.

    Args:
        function: takes input name -> array.
        where: the name of the function in messages.
        feed: the argument.
        outputs: the declared outputs; others are ignored.
        sizes: known sizes of dimensions; outputs must have the same sizes.

    Raises:
        RunnerError: the function failed, or its outputs do not fit the declaration.
    """
    try:
        with user_code.running(function):
            given = function(feed)
    except (Exception, SystemExit) as e:
        raise RunnerError(f"{where}: raised {user_code.describe(e)}") from e
    if not isinstance(given, Mapping):
        raise RunnerError(f"{where}: returned a {type(given).__name__}; expected a mapping of output name to array")
    for spec in outputs:
        array = given.get(spec.name)
        if not _fits(array, spec, sizes or {}):
            found = (
                f"{array.dtype}[{','.join(map(str, array.shape))}]" if isinstance(array, np.ndarray) else repr(array)
            )
            at = ", ".join(f"{dim} {size}" for dim, size in (sizes or {}).items() if dim in spec.shape)
            raise RunnerError(
                f"{where}: output {spec.name!r} is {found}; expected {spec.type_text}{f' with {at}' if at else ''}"
            )
    return {spec.name: given[spec.name] for spec in outputs}


def _fits(array: object, spec: TensorSpec, sizes: Mapping[str, int]) -> bool:
    return (
        isinstance(array, np.ndarray)
        and array.dtype == spec.dtype.numpy
        and array.ndim == len(spec.shape)
        and all(
            (dim if isinstance(dim, int) else sizes.get(dim, size)) == size
            for dim, size in zip(spec.shape, array.shape, strict=True)
        )
    )


def prove_function(
    model: FunctionModel, samples: Samples, *, batching: bool
) -> tuple[Golden, BatchIndependence | None]:
    """Run a function at every corner of its dimensions. Return golden samples and the result of the check for batch independence.

    Raises:
        StageError: a second call with the same feed gives different outputs, or an output contains NaN on random values.
        RunnerError: the function fails, or its outputs do not fit the declaration.
        FeedError: the real data does not fit the inputs.
    """
    points = corners(model.dims)
    for sizes in track(points, f"run {model.title}", len(points)):
        model.infer(samples.at(sizes))
    feed = samples.at(golden_sizes(model.inputs, model.dims))
    golden = Golden(feed, model.infer(feed), TOLERANCE)
    if samples.real is None and (unusable := nan_faults(golden.outputs, {})):
        raise StageError(f"{model.title}: output {unusable[0].output!r}: {unusable[0].failure}")
    for found in compare_outputs(golden.outputs, model.infer(feed), {}, TOLERANCE):
        if found.failure:
            raise StageError(
                f"{model.title}: output {found.output!r} differs in a second call with the same feed: {found.failure}; expected equal "
                f"outputs. Keep no state between calls, and use no random numbers."
            )
    independence = None
    if batching:
        independence = compare_batches(model.infer, samples, model.outputs, model.dims, TOLERANCE)
    return golden, independence
