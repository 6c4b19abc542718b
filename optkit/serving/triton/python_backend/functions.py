"""A Python function as a model: its declared contract, and the proof that the function keeps it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from optkit import user_code
from optkit.artifact import Precision
from optkit.artifact.findings import BatchIndependence
from optkit.artifact.tensors import DimRange, Feed, TensorSpec, check_feed, corners
from optkit.checks import TOLERANCES, compare_batches, compare_outputs
from optkit.data import Samples
from optkit.errors import RunnerError, StageError
from optkit.progress import track
from optkit.serving.golden import Golden, golden_sizes

TOLERANCE = TOLERANCES[Precision.FP32]  # another machine adds in another order too


@dataclasses.dataclass(frozen=True)
class FunctionModel:
    """`file.py:function` of input name -> array, which gives output name -> array, and what it is declared to take and give."""

    target: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dims: Mapping[str, DimRange]

    @property
    def title(self) -> str:
        """What messages call it."""
        return self.target.rpartition("/")[2]

    def infer(self, feed: Feed) -> dict[str, np.ndarray]:
        """Call it on a copy of a feed.

        Raises:
            FeedError: the feed does not fit the inputs.
            RunnerError: it failed, or gave something else than it declares.
            ModelError: it cannot be imported.
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
    """Call the user's function and check what it gives against what it declares.

    Args:
        function: takes input name -> array.
        where: what messages call it.
        feed: what it is called with.
        outputs: what it declares; other outputs are left out.
        sizes: of the dimensions that are known; outputs must have them too.

    Raises:
        RunnerError: it failed, or gave something else.
    """
    try:
        with user_code.running(function):
            given = function(feed)
    except (Exception, SystemExit) as e:
        raise RunnerError(f"{where}: raised {user_code.describe(e)}") from e
    if not isinstance(given, Mapping):
        raise RunnerError(f"{where}: gave a {type(given).__name__}; expected a mapping of output name to array")
    for spec in outputs:
        array = given.get(spec.name)
        if not _fits(array, spec, sizes or {}):
            found = (
                f"{array.dtype}[{','.join(map(str, array.shape))}]" if isinstance(array, np.ndarray) else repr(array)
            )
            at = ", ".join(f"{dim} {size}" for dim, size in (sizes or {}).items() if dim in spec.shape)
            raise RunnerError(
                f"{where}: output {spec.name!r} is {found}; declared {spec.type_text}{f' with {at}' if at else ''}"
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
    """Run a function at every corner of its dimensions, and return golden samples and what was found on putting requests together.

    Raises:
        StageError: the same feed gives other answers the second time, or NaN.
        RunnerError: it fails, or gives something else than it declares.
        FeedError: the real data does not fit the inputs.
    """
    points = corners(model.dims)
    for sizes in track(points, f"run {model.title}", len(points)):
        model.infer(samples.at(sizes))
    feed = samples.at(golden_sizes(model.inputs, model.dims))
    golden = Golden(feed, model.infer(feed), TOLERANCE)
    for found in compare_outputs(golden.outputs, model.infer(feed), {}, TOLERANCE):
        if found.failure:
            raise StageError(
                f"{model.title}: output {found.output!r} is not the same when it is asked again: {found.failure}. A server cannot be "
                f"held to that: keep no state between calls, and draw no random numbers."
            )
    independence = None
    if batching:
        independence = compare_batches(model.infer, samples, model.outputs, model.dims, TOLERANCE)
    return golden, independence
