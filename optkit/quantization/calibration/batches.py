"""Regrouping of feeds into batches of one size, so that no result depends on the sizes of the feeds."""

import itertools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from optkit.artifact.tensors import Feed

_BATCH_BYTES = 8 * 2**20  # of activations: large enough to hide the overhead of a call, small enough for a cache
_MAX_ROWS = 256
_CLOSE = 1e-3  # of a tensor's largest magnitude; kernels for other batch sizes differ by far less

Run = Callable[[Feed], Mapping[str, np.ndarray]]


def in_batches(feeds: Iterable[Feed], run: Run) -> tuple[Iterator[Feed], int | None]:
    """Return the samples of the feeds in their order, in batches whose size depends only on the model and the first samples.

    A batch has at most 8 MiB of activations, or one sample where these are larger. A batch ends where the shape of the samples changes.
    The first two samples show whether the samples of a batch affect each other. Such a model gets its feeds unchanged, because there the
    grouping is part of the data.

    Args:
        feeds: the batch is the first dimension of every input.
        run: returns the activations of a feed.

    Returns:
        The batches, and their approximate number where the number of feeds is known.
    """
    stream = iter(feeds)
    read: list[Feed] = []
    for feed in stream:
        read.append(feed)
        if sum(map(rows_of, read)) > 1:
            break
    every = itertools.chain(read, stream)
    known = operator.length_hint(feeds) or None
    if not read:
        return every, known
    rows = _rows_for(run(next(regrouped(read, 1))))
    pair = next(regrouped(read, 2))
    as_they_are = rows == 1 and all(rows_of(feed) == 1 for feed in read)
    if rows_of(pair) == 2 and not as_they_are and not _independent(run, pair):
        return every, known
    return regrouped(every, rows), known and math.ceil(known * rows_of(read[0]) / rows)


def regrouped(feeds: Iterable[Feed], rows: int) -> Iterator[Feed]:
    """Yield the samples in batches of `rows`; fewer at the end, and where the shape of the samples changes."""
    waiting: list[Feed] = []
    held = 0
    for feed in feeds:
        if waiting and _sample_shapes(feed) != _sample_shapes(waiting[0]):
            yield _joined(waiting)
            waiting, held = [], 0
        start, size = 0, rows_of(feed)
        while start < size:
            end = min(size, start + rows - held)
            waiting.append({name: array[start:end] for name, array in feed.items()})
            held += end - start
            start = end
            if held == rows:
                yield _joined(waiting)
                waiting, held = [], 0
    if waiting:
        yield _joined(waiting)


def rows_of(feed: Feed) -> int:
    """Return the number of samples in a feed: the common first size of its arrays, or 1 where these differ."""
    sizes = {array.shape[0] if array.ndim else 1 for array in feed.values()}
    return sizes.pop() if len(sizes) == 1 else 1


def _rows_for(activations: Mapping[str, np.ndarray]) -> int:
    total = sum(array.nbytes for array in activations.values())
    return min(_MAX_ROWS, max(1, _BATCH_BYTES // max(1, total)))


def _independent(run: Run, pair: Feed) -> bool:
    """Whether two samples have the same extremes in every tensor together and separately."""
    together = run(pair)
    alone = [run(feed) for feed in regrouped([pair], 1)]
    for name, array in together.items():
        largest = float(np.abs(array).max())
        for extreme in (np.min, np.max):
            both = extreme([extreme(single[name]) for single in alone])
            if both != extreme(array) and not abs(both - extreme(array)) <= _CLOSE * largest:
                return False
    return True


def _sample_shapes(feed: Feed) -> dict[str, tuple[int, ...]]:
    return {name: array.shape[1:] for name, array in feed.items()}


def _joined(pieces: list[Feed]) -> Feed:
    if len(pieces) == 1:
        return pieces[0]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
