import numpy as np
import pytest

from optkit.calibration.methods import BINS, Histogram, Range, entropy, observed, percentile


def histogram(values: np.ndarray) -> Histogram:
    low, high = float(values.min()), float(values.max())
    counts, _ = np.histogram(values, BINS, (low, high))
    return Histogram(low, high, counts)


def sqnr_db(values: np.ndarray, range_: Range) -> float:
    """Return the signal to noise ratio of affine INT8 in this range."""
    scale = (range_.high - range_.low) / 255
    zero = np.rint(-range_.low / scale)
    back = (np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale
    return float(10 * np.log10(np.sum(values**2) / np.sum((values - back) ** 2)))


NORMAL = np.random.default_rng(0).standard_normal(1_000_000)


@pytest.mark.parametrize(
    ("low", "high", "range_"), [(-1, 2, (-1, 2)), (1, 2, (0, 2)), (-2, -1, (-2, 0)), (0, 0, (0, 0))]
)
def test_a_range_holds_zero(low: float, high: float, range_: tuple[float, float]) -> None:
    assert observed(low, high) == range_


@pytest.mark.parametrize("percent", [51, 90, 99, 99.9])
def test_the_percentile_is_that_of_the_values_to_the_edge_of_a_bin(percent: float) -> None:
    values = np.random.default_rng(1).gamma(2, size=5000) - 1
    found = percentile(histogram(values), percent)
    tail = (100 - percent) / 2
    bin_width = (values.max() - values.min()) / BINS
    low = -np.percentile(-values, 100 - tail, method="inverted_cdf")
    high = np.percentile(values, 100 - tail, method="inverted_cdf")
    assert found.low == pytest.approx(min(low, 0), abs=1.01 * bin_width)
    assert found.high == pytest.approx(high, abs=1.01 * bin_width)
    left_out = np.mean((values < found.low) | (values > found.high))
    assert left_out <= (100 - percent) / 100


def test_the_whole_percentile_is_min_max() -> None:
    values = np.array([-1.0, 0.5, 3.0])
    assert percentile(histogram(values), 100) == pytest.approx((-1, 3))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", ["laplace", "exponential", "standard_cauchy"])
def test_entropy_agrees_with_a_search_by_hand(shape: str, seed: int) -> None:
    """The same definition, written bin by bin."""
    values = getattr(np.random.default_rng(seed), shape)(size=20_000)
    counted = histogram(values)
    whole = observed(counted.low, counted.high)
    width = (counted.high - counted.low) / BINS
    found = []
    for step in range(64, 0, -1):
        low, high = whole.low * step / 64, whole.high * step / 64
        p: dict[int, float] = {}
        inside: dict[int, float] = {}
        levels: dict[int, list[int]] = {}
        bins = [i for i in range(BINS) if low <= counted.low + (i + 0.5) * width <= high]
        for i, count in enumerate(counted.counts):
            nearest = min(max(i, bins[0]), bins[-1])
            p[nearest] = p.get(nearest, 0) + count
            if nearest == i and count:
                inside[i] = count
                levels.setdefault(round((counted.low + (i + 0.5) * width - low) / (high - low) * 255), []).append(i)
        q = {i: sum(inside[j] for j in group) / len(group) for group in levels.values() for i in group}
        n, inner = len(values), sum(q.values())
        kl = sum(c / n * np.log(c / n / max(q.get(i, 0) / inner, 1e-12)) for i, c in p.items() if c)
        found.append((kl - (sum(c > 0 for c in p.values()) - len(levels)) / (2 * n), -step, Range(low, high)))
    assert entropy(counted) == pytest.approx(min(found)[2])


def test_entropy_cuts_off_an_outlier() -> None:
    counted = histogram(np.append(NORMAL, 100.0))
    found = entropy(counted)
    assert found.high < 80 < observed(counted.low, counted.high).high


def test_entropy_cuts_a_long_tail_and_gains_by_it() -> None:
    values = np.random.default_rng(3).standard_t(3, size=1_000_000)
    found = entropy(histogram(values))
    assert found.high < values.max() / 2
    assert sqnr_db(values, found) > sqnr_db(values, observed(values.min(), values.max())) + 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [300, 1000, 3000, 30_000, 300_000])
@pytest.mark.parametrize("shape", ["normal", "uniform", "relu", "clipped"])
def test_entropy_leaves_well_shaped_values_alone_however_few(shape: str, count: int, seed: int) -> None:
    """Neither the noise of few samples nor the zeros of ReLU may shrink the range; both once did, to a third."""
    rng = np.random.default_rng(seed)
    drawn = rng.uniform(-1, 1, count) if shape == "uniform" else rng.standard_normal(count)
    match shape:
        case "relu":
            values = drawn[drawn > 0]  # zeros are not counted
        case "clipped":
            values = np.minimum(drawn[drawn > 0] * 4, 6)
        case _:
            values = drawn
    found = entropy(histogram(values))
    assert sqnr_db(values, found) > sqnr_db(values, observed(values.min(), values.max())) - 0.5


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [300, 1000, 3000])
def test_few_samples_of_a_long_tail_do_not_shrink_the_range(count: int, seed: int) -> None:
    """Without the correction for few samples this loses 8 to 23 dB."""
    values = np.random.default_rng(seed).exponential(size=count)
    found = entropy(histogram(values))
    assert sqnr_db(values, found) > sqnr_db(values, observed(values.min(), values.max())) - 0.5


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0])
def test_a_constant_has_a_range(value: float) -> None:
    counts = np.zeros(BINS, np.int64)
    counts[0] = 7
    constant = Histogram(value, value, counts)
    assert entropy(constant) == percentile(constant, 99.9) == observed(value, value)
