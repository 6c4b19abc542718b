"""Which samples the layers are ranked on, and on which others a model is judged."""

from collections.abc import Iterable
from dataclasses import dataclass

from optkit.artifact.tensors import Feed, batch_dim
from optkit.data import Feeds
from optkit.errors import StageError
from optkit.quantization.calibration.batches import rows_of


@dataclass(frozen=True)
class Amount:
    """How many samples are enough: fewer of large ones, since a model takes as much longer over these, and each layer costs a run."""

    fewest: int
    most: int
    elements: int  # of the inputs of all samples together, between the two

    def of(self, feed: Feed) -> int:
        """Return how many samples like those of a feed are enough."""
        size = sum(array.size for array in feed.values()) // max(rows_of(feed), 1)
        return min(self.most, max(self.fewest, self.elements // max(size, 1)))


RANKING = Amount(fewest=8, most=32, elements=2**20)  # the order of the layers is stable long before the figures are
JUDGING = Amount(fewest=32, most=256, elements=2**22)


def split(real: Feeds | None, judging: bool) -> tuple[list[Feed], list[Feed]]:
    """Return feeds to rank on, and others to judge on: every second one, or the halves of a batch where there is one feed.

    Args:
        real: the samples.
        judging: whether feeds to judge on are wanted; without it all may serve to rank on.

    Raises:
        StageError: there is no real data, or one sample only.
    """
    if real is None:
        raise StageError("ranking the layers needs real samples. Give --calibration DATA.")
    batched = batch_dim(real.inputs) is not None
    if not judging:
        return _first(real, RANKING, batched), []
    feeds = _first(real, JUDGING, batched, times=2)
    if len(feeds) == 1:
        half = rows_of(feeds[0]) // 2 if batched else 0
        if half == 0:
            raise StageError(
                f"{real.target}: gave one sample; layers are ranked on other samples than they are judged on. Give more."
            )
        parts = (slice(0, half), slice(half, None))
        feeds = [{name: array[part] for name, array in feeds[0].items()} for part in parts]
    return _first(feeds[::2], RANKING, batched), _first(feeds[1::2], JUDGING, batched)


def _first(feeds: Iterable[Feed], amount: Amount, batched: bool, times: int = 1) -> list[Feed]:
    """Return the first feeds that together hold so many samples; the last is cut where its samples are rows of a batch."""
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
