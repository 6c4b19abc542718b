"""Batch independence: f([a, b]) = [f(a), f(b)], which every batching server takes for granted."""

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
    """Run two feeds alone and put together, and compare the answers.

    Args:
        runner: open.
        samples: where the values come from.
        dims: the ranges; the two feeds together stay within that of the batch.
        tolerance: None takes that of the artifact's precision.

    Raises:
        RunnerError: the artifact cannot be run on a feed inside its range.
    """
    artifact = runner.artifact
    tolerance = tolerance or TOLERANCES[artifact.products]
    return compare_batches(runner.infer, samples, artifact.outputs, dims, tolerance)


def compare_batches(
    infer: Callable[[Feed], "Mapping[str, np.ndarray]"],
    samples: Samples,
    outputs: Sequence[TensorSpec],
    dims: Mapping[str, DimRange],
    tolerance: Tolerance,
) -> BatchIndependence:
    """Run two feeds alone and put together through any function of a feed, and compare; as `check_batch_independence`."""
    import numpy as np

    dim = batch_dim(samples.inputs)
    if dim is None or dim not in dims:
        return BatchIndependence(dim=None, failure="the inputs do not share a first dimension that varies")
    sizes = {name: r.opt for name, r in dims.items()}
    first = dims[dim].min
    second = min(
        first + dims[dim].multiple_of, dims[dim].max - first
    )  # two sizes that differ, where the range has room
    if second < first:
        why = f"not checked: no two sizes of {dim!r} in {dims[dim].min} to {dims[dim].max} add up to a third"
        return BatchIndependence(dim=None, failure=why)
    elsewhere = [s.name for s in outputs if dim in s.shape[1:]]
    if elsewhere:
        why = (
            f"not checked: output {elsewhere[0]!r} does not have {dim!r} first, so no server can put its rows together"
        )
        return BatchIndependence(dim=None, failure=why)
    a, b = _two_feeds(samples, sizes | {dim: first}, sizes | {dim: second})
    both = {name: np.concatenate([a[name], b[name]]) for name in a}
    together = infer(both)
    for name, array in together.items():
        if array.ndim == 0 or len(array) != first + second:
            return BatchIndependence(
                dim=dim,
                failure=f"output {name!r} has shape {list(array.shape)} for {first + second} samples: it folds the batch "
                f"into another dimension, so a server that batches would give wrong answers",
            )
    for feed, rows in ((a, slice(0, first)), (b, slice(first, None))):
        alone = infer(feed)
        for found in compare_outputs(alone, {n: x[rows] for n, x in together.items()}, {}, tolerance):
            if found.failure:
                failure = f"output {found.output!r} of a sample changes with the others in its batch: {found.failure}"
                return BatchIndependence(dim=dim, failure=failure)
    return BatchIndependence(dim=dim)


def _two_feeds(samples: Samples, first: Sizes, second: Sizes) -> tuple[Feed, Feed]:
    """Return two feeds that differ; real data of one sample only would hide what one sample does to another."""
    a, b = samples.at(first, seed=0), samples.at(second, seed=len(next(iter(samples.at(first).values()))) + 2)
    if all((b[name] == a[name][:1]).all() for name in a):
        return random_feed(samples.inputs, first, 0), random_feed(samples.inputs, second, 1)
    return a, b
