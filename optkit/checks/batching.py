"""Batch independence: f([a, b]) = [f(a), f(b)]. Every server that batches requests assumes it."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from optkit.artifact.findings import BatchIndependence, Tolerance
from optkit.artifact.tensors import DimRange, Feed, Sizes, TensorSpec, batch_dim
from optkit.checks.parity import TOLERANCES, compare_outputs
from optkit.data import Samples, random_feed
from optkit.runners import Runner

if TYPE_CHECKING:
    import numpy as np


def check_batch_independence(
    runner: Runner, samples: Samples, dims: Mapping[str, DimRange], tolerance: Tolerance | None = None
) -> BatchIndependence:
    """Run two feeds separately and as one batch, and compare the outputs.

    Args:
        runner: open.
        samples: the source of the values.
        dims: the ranges; the two feeds together stay within the range of the batch dimension.
        tolerance: None uses the tolerance of the artifact's precision.

    Raises:
        RunnerError: the artifact fails on a feed inside its range.
    """
    artifact = runner.artifact
    tolerance = tolerance or TOLERANCES[artifact.compute_precision]
    return compare_batches(runner.infer, samples, artifact.outputs, dims, tolerance)


def compare_batches(
    infer: Callable[[Feed], "Mapping[str, np.ndarray]"],
    samples: Samples,
    outputs: Sequence[TensorSpec],
    dims: Mapping[str, DimRange],
    tolerance: Tolerance,
) -> BatchIndependence:
    """Do the same as `check_batch_independence` for any function of a feed."""
    import numpy as np

    dim = batch_dim(samples.inputs)
    if dim is None or dim not in dims:
        return BatchIndependence(dim=None, failure="the inputs do not share a first dimension that varies")
    sizes = {name: r.opt for name, r in dims.items()}
    first = dims[dim].min
    second = min(first + dims[dim].multiple_of, dims[dim].max - first)  # two different sizes, where the range has room
    if second < first:
        why = f"not checked: no two sizes of {dim!r} in {dims[dim].min} to {dims[dim].max} have a sum in this range"
        return BatchIndependence(dim=None, failure=why)
    elsewhere = [s.name for s in outputs if dim in s.shape[1:]]
    if elsewhere:
        why = f"not checked: {dim!r} is not the first dimension of output {elsewhere[0]!r}, so no server can batch it"
        return BatchIndependence(dim=None, failure=why)
    a, b = _two_feeds(samples, sizes | {dim: first}, sizes | {dim: second})
    both = {name: np.concatenate([a[name], b[name]]) for name in a}
    together = infer(both)
    for name, array in together.items():
        if array.ndim == 0 or len(array) != first + second:
            return BatchIndependence(
                dim=dim,
                failure=f"output {name!r} has shape {list(array.shape)} for {first + second} samples: it folds the batch "
                f"into another dimension, so a server that batches requests would return wrong outputs",
            )
    for feed, rows in ((a, slice(0, first)), (b, slice(first, None))):
        alone = infer(feed)
        for found in compare_outputs(alone, {n: x[rows] for n, x in together.items()}, {}, tolerance):
            if found.failure:
                failure = (
                    f"output {found.output!r} of a sample depends on the other samples in its batch: {found.failure}"
                )
                return BatchIndependence(dim=dim, failure=failure)
    return BatchIndependence(dim=dim)


def _two_feeds(samples: Samples, first: Sizes, second: Sizes) -> tuple[Feed, Feed]:
    """Return two different feeds; equal samples would hide the effect of one sample on another."""
    a, b = samples.at(first, seed=0), samples.at(second, seed=len(next(iter(samples.at(first).values()))) + 2)
    if all((b[name] == a[name][:1]).all() for name in a):
        values = samples.random
        return random_feed(samples.inputs, first, 0, values=values), random_feed(
            samples.inputs, second, 1, values=values
        )
    return a, b
