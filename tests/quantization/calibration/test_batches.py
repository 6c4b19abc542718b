import itertools

import numpy as np
import pytest

from optkit.artifact.tensors import Feed
from optkit.quantization.calibration.batches import in_batches, regrouped, rows_of

ROWS = np.arange(40, dtype=np.float32).reshape(20, 2)


def cut(*sizes: int) -> list[Feed]:
    ends = list(itertools.accumulate(sizes))
    assert ends[-1] == len(ROWS)
    return [{"x": ROWS[end - size : end]} for size, end in zip(sizes, ends, strict=True)]


@pytest.mark.parametrize("sizes", [(20,), (1,) * 20, (3, 7, 10), (19, 1)])
@pytest.mark.parametrize("rows", [1, 4, 6, 50])
def test_samples_are_put_together_anew(sizes: tuple[int, ...], rows: int) -> None:
    batches = list(regrouped(cut(*sizes), rows))
    assert [rows_of(batch) for batch in batches] == [min(rows, 20 - start) for start in range(0, 20, rows)]
    assert np.array_equal(np.concatenate([batch["x"] for batch in batches]), ROWS)


def test_a_batch_ends_where_the_shape_changes() -> None:
    shapes = [(2, 3), (1, 3), (1, 5), (2, 5), (1, 3)]
    feeds = [{"x": np.zeros(shape)} for shape in shapes]
    assert [batch["x"].shape for batch in regrouped(feeds, 4)] == [(3, 3), (3, 5), (1, 3)]


def test_large_activations_go_one_by_one_and_small_ones_together() -> None:
    for bytes_of_one, rows in ((16 << 20, 1), (1 << 20, 8), (8, 256)):

        def run(feed: Feed, size: int = bytes_of_one) -> dict[str, np.ndarray]:
            return {"y": np.zeros((rows_of(feed), size // 4), np.float32)}

        feeds = [{"x": np.zeros((300, 2), np.float32)}]
        batches, about = in_batches(feeds, run)
        sizes = [rows_of(batch) for batch in batches]
        assert max(sizes) == rows
        assert len(sizes) == about == -(-300 // rows)


def mixes(feed: Feed) -> dict[str, np.ndarray]:
    return {"y": feed["x"] - feed["x"].mean(axis=0)}


def overflows(feed: Feed) -> dict[str, np.ndarray]:
    return {"y": feed["x"] * np.float32(np.inf)}


@pytest.mark.parametrize("run", [mixes, overflows])
def test_feeds_of_a_model_that_mixes_its_batch_stay_as_they_are(run) -> None:
    with np.errstate(invalid="ignore"):
        batches, _ = in_batches(cut(3, 7, 10), run)
        assert [rows_of(batch) for batch in batches] == [3, 7, 10]


def test_single_samples_of_a_large_model_are_not_run_twice() -> None:
    calls = 0

    def run(feed: Feed) -> dict[str, np.ndarray]:
        nonlocal calls
        calls += 1
        return {"y": np.zeros((1, 4 << 20), np.float32)}

    batches, _ = in_batches(cut(*(1,) * 20), run)
    assert len(list(batches)) == 20
    assert calls == 1  # to see how large the activations are


def test_no_feeds_give_no_batches() -> None:
    batches, about = in_batches([], mixes)
    assert list(batches) == []
    assert about is None
