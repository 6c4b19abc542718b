"""The samples that rank the layers, and the holdout samples that measure a model."""

from collections.abc import Iterable
from dataclasses import dataclass

from optkit.artifact.tensors import Feed, batch_dim
from optkit.data import Feeds
from optkit.errors import StageError
from optkit.quantization.calibration.batches import rows_of


@dataclass(frozen=True)
class Amount:
    """The number of samples: fewer of large ones, because a model takes longer on these and every layer costs one run."""

    fewest: int
    most: int
    elements: int  # of all samples together; decides between `fewest` and `most`

    def of(self, feed: Feed) -> int:
        """Return the number of samples for samples of this size."""
        size = sum(array.size for array in feed.values()) // max(rows_of(feed), 1)
        return min(self.most, max(self.fewest, self.elements // max(size, 1)))


RANKING = Amount(fewest=8, most=32, elements=2**20)  # the order of the layers is stable long before the values are
HOLDOUT = Amount(fewest=32, most=256, elements=2**22)


def split(real: Feeds | None, holdout: bool) -> tuple[list[Feed], list[Feed]]:
    """Return the feeds that rank the layers, and the holdout feeds: every second one, or the halves of a single batch.

    Args:
        real: the samples.
        holdout: whether holdout feeds are needed; without them all feeds rank the layers.

    Raises:
        StageError: there is no real data, or only one sample.
    """
    if real is None:
        raise StageError("ranking the layers needs real samples. Give --calibration DATA.")
    batched = batch_dim(real.inputs) is not None
    if not holdout:
        return _first(real, RANKING, batched), []
    feeds = _first(real, HOLDOUT, batched, times=2)
    if len(feeds) == 1:
        half = rows_of(feeds[0]) // 2 if batched else 0
        if half == 0:
            raise StageError(
                f"{real.target}: gave one sample; expected at least two: one to rank the layers, another to measure the model. "
                f"Give more samples."
            )
        parts = (slice(0, half), slice(half, None))
        feeds = [{name: array[part] for name, array in feeds[0].items()} for part in parts]
    return _first(feeds[::2], RANKING, batched), _first(feeds[1::2], HOLDOUT, batched)


def _first(feeds: Iterable[Feed], amount: Amount, batched: bool, times: int = 1) -> list[Feed]:
    """Return the first feeds that together have this many samples; the last feed is cut where its samples are rows of a batch."""
    found: list[Feed] = []
    left: int | None = None
    for feed in feeds:
        left = times * amount.of(feed) if left is None else left
        rows = rows_of(feed)
        found.append({name: array[:left] for name, array in feed.items()} if batched and rows > left else feed)
        left -= rows
        if left <= 0:
            break
    return found
