import numpy as np
import pytest

from optkit.quantization.calibration.histogram import SIDE, Histogram, thinned


def counted(*arrays: np.ndarray) -> Histogram:
    found = Histogram()
    for array in arrays:
        found.add(array, float(array.min()), float(array.max()))
    return found


def same(one: Histogram, other: Histogram) -> bool:
    return (
        np.array_equal(one.counts, other.counts)
        and (one.low, one.high, one.width) == (other.low, other.high, other.width)
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_the_counts_are_the_same_in_whatever_portions_and_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.standard_cauchy(5000) * 10 ** rng.uniform(-8, 8)).astype(np.float32)
    values[:100] = 0
    whole = counted(values)
    assert whole.total == len(values)
    pieces = np.split(values, np.sort(rng.integers(1, len(values) - 1, 40)))
    assert same(counted(*(p for p in pieces if p.size)), whole)
    assert same(counted(*(p for p in pieces[::-1] if p.size)), whole)
    assert same(counted(*np.sort(np.abs(values)).reshape(-1, 1)), counted(np.abs(values)))


def test_every_value_lies_in_its_bin() -> None:
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    found = counted(values)
    exact = np.zeros(len(found.counts), np.int64)
    for value in values.astype(np.float64):
        exact[SIDE - 1 + int(value / found.width)] += 1
    assert np.array_equal(found.counts, exact)
    inside = np.abs(found.centres[SIDE - 1 + (values / found.width).astype(int)] - values)
    assert inside.max() <= found.width


@pytest.mark.parametrize("largest", [1.0, 0.999, 1e-20, 3e38, 2.0**-7, 1.0000001])
def test_the_larger_side_has_at_least_8192_bins(largest: float) -> None:
    found = counted(np.array([largest, -largest / 3], np.float32))
    assert 8192 <= np.float32(largest) / found.width <= SIDE
    assert found.total == 2


def test_zeros_are_counted_before_anything_is_known_of_the_width() -> None:
    found = counted(np.zeros(5, np.float32), np.array([2.0], np.float32), np.zeros(3, np.float32))
    assert found.counts[SIDE - 1] == 8
    assert found.total == 9


def test_float16_is_counted_as_the_numbers_that_it_holds() -> None:
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float16) * np.float16(1000)
    assert same(counted(values), counted(values.astype(np.float32)))


@pytest.mark.parametrize("every", [2, 8, 10])
@pytest.mark.parametrize("size", [4096, 100_000, 12_345])
def test_one_in_so_many_is_taken_from_all_over(every: int, size: int) -> None:
    taken = thinned(np.arange(size), every)
    assert len(taken) == pytest.approx(size / every, rel=0.01)
    assert np.array_equal(np.unique(taken), taken)
    assert np.diff(taken).max() <= every + 1
    for width in (every, 2 * every):  # the columns of an image, all of them
        assert len(np.unique(taken % width)) >= width / 2


def test_few_elements_are_all_taken() -> None:
    assert len(thinned(np.arange(4095), 8)) == 4095


def test_a_sampled_histogram_is_near_the_exact_one_and_has_its_extremes() -> None:
    values = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
    sampled, exact = Histogram(), counted(values)
    sampled.add(values, exact.low, exact.high, every=8)
    assert (sampled.low, sampled.high, sampled.width) == (exact.low, exact.high, exact.width)
    assert sampled.total == pytest.approx(exact.total / 8, rel=0.001)
    distance = np.abs(np.cumsum(sampled.counts) / sampled.total - np.cumsum(exact.counts) / exact.total)
    assert distance.max() < 0.005
