"""The input values of a load test: golden samples of a repository, real data, or seeded random values."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optkit.artifact.tensors import DType, Feed, TensorSpec, batch_dim
from optkit.data import Feeds, absolute_data, random_feed
from optkit.errors import ArtifactError, FeedError, RecipeError, RunnerError
from optkit.record import validation_error_as
from optkit.serving.golden import Golden, read_golden
from optkit.serving.triton.package_record import read_record

_FEEDS = 16  # different requests, sent in turn
BATCH = "batch"


@dataclasses.dataclass(frozen=True)
class Values:
    """One feed for each request, and the source of the values."""

    feeds: tuple[Feed, ...]
    origin: str
    random: bool = False


def specs_of(metadata: Iterable[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    """Return the input specs from Triton's metadata. The first dimension is the batch dimension if it is -1 in all inputs.

    Raises:
        RecipeError: an input holds text, which feeds do not support.
        RunnerError: an input has a name that a tensor cannot have.
    """
    from tritonclient.utils import triton_to_np_dtype

    tensors = [(one["name"], one["datatype"], [int(size) for size in one["shape"]]) for one in metadata]
    batched = all(shape[:1] == [-1] for _, _, shape in tensors)
    specs = []
    for name, datatype, shape in tensors:
        dtype = np.dtype(triton_to_np_dtype(datatype) or object).name
        if dtype not in set(DType):
            raise RecipeError(f"input {name!r}: has type {datatype}; a load test sends numbers and booleans only")
        dims = [size if size > 0 else f"{name}_{axis}" for axis, size in enumerate(shape)]
        with validation_error_as(RunnerError, "what the server says of an input"):
            dims = [BATCH, *dims[1:]] if batched else dims
            specs.append(TensorSpec(name=name, dtype=DType(dtype), shape=tuple(dims)))
    return tuple(specs)


def golden_of(repository: Path, model: str, version: str) -> Golden:
    """Return the golden samples of one version of a model in a Triton repository. An empty version means the newest version.

    Raises:
        ArtifactError: there are no golden samples.
    """
    record = read_record(repository / model)
    found = record.golden if record else {}
    chosen = version or max(found, key=int, default="")
    if chosen not in found:
        raise ArtifactError(
            f"{repository}: holds no golden samples of model {model!r}{f' version {version}' if version else ''}; "
            f"expected the samples that optkit package stores. Package the model again, or give --data."
        )
    return read_golden(repository / model / found[chosen].file, found[chosen].tolerance)


def values_of(
    specs: Sequence[TensorSpec], batch: int, *, data: str | None = None, golden: Golden | None = None, seed: int = 0
) -> Values:
    """Return feeds of `batch` samples.

    Args:
        specs: the inputs of the model.
        batch: samples in one request.
        data: real data, as `file.py:function` or .npz files; takes precedence over `golden`.
        golden: golden samples of the model. Without `data` and `golden` the values are random.
        seed: for random values.

    Raises:
        FeedError: the data does not fit the inputs, or the size of a dimension for random values is unknown.
        RecipeError: `batch` is above 1, and the model has no batch dimension.
    """
    if batch > 1 and batch_dim(specs) is None:
        raise RecipeError(f"--batch {batch}: the model's inputs have no common batch dimension; expected 1")
    if data is not None:
        return Values(_cut(Feeds(absolute_data(data, Path()), specs), specs, batch), "real samples")
    if golden is not None:
        return Values(_cut([golden.inputs], specs, batch), "golden samples")
    unknown = [repr(spec.name) for spec in specs if any(isinstance(dim, str) and dim != BATCH for dim in spec.shape)]
    if unknown:
        raise FeedError(
            f"input {', '.join(unknown)}: has a dynamic dimension other than the batch; random values need a "
            f"fixed size. Give --data or --repository."
        )
    feeds = [random_feed(specs, {BATCH: batch}, seed + i) for i in range(_FEEDS)]
    return Values(tuple(feeds), "seeded random", random=True)


def _cut(feeds: Iterable[Feed], specs: Sequence[TensorSpec], batch: int) -> tuple[Feed, ...]:
    """Cut feeds into requests of `batch` samples with different first samples. Without a batch dimension, keep the feeds as they are."""
    if batch_dim(specs) is None:
        return tuple(itertools.islice(feeds, _FEEDS))
    pool: dict[str, np.ndarray] = {}
    for feed in feeds:
        if not pool:
            pool = dict(feed)
        elif all(pool[name].shape[1:] == array.shape[1:] for name, array in feed.items()):
            pool = {name: np.concatenate([pool[name], array]) for name, array in feed.items()}
        rows = len(next(iter(pool.values())))
        if rows >= _FEEDS * batch:
            break
    _check_names(pool, specs)
    rows = len(next(iter(pool.values())))
    starts = range(0, max(min(rows, _FEEDS * batch), 1), batch)
    return tuple(
        {name: array.take((np.arange(batch) + start) % rows, 0) for name, array in pool.items()} for start in starts
    )


def _check_names(feed: Feed, specs: Sequence[TensorSpec]) -> None:
    names = {spec.name for spec in specs}
    if set(feed) != names:
        raise FeedError(f"samples: have inputs {', '.join(sorted(feed))}; expected {', '.join(sorted(names))}")
