import numpy as np
import pytest
import torch
from torch.ao.quantization import MovingAverageMinMaxObserver

from optkit.quantization.calibration.histogram import Histogram
from optkit.quantization.calibration.ranges import moving_average, observed, percentile


def histogram(values: np.ndarray) -> Histogram:
    counted = Histogram()
    counted.add(values.astype(np.float32), float(values.min()), float(values.max()))
    return counted


@pytest.mark.parametrize(
    ("low", "high", "range_"), [(-1, 2, (-1, 2)), (1, 2, (0, 2)), (-2, -1, (-2, 0)), (0, 0, (0, 0))]
)
def test_a_range_holds_zero(low: float, high: float, range_: tuple[float, float]) -> None:
    assert observed(low, high) == range_
    assert observed(low, high, True) == (-max(-low, high), max(-low, high))


@pytest.mark.parametrize("percent", [51, 90, 99, 99.9])
def test_the_percentile_is_that_of_the_values_to_the_edge_of_a_bin(percent: float) -> None:
    values = (np.random.default_rng(1).gamma(2, size=4999) - 1).astype(np.float32)
    counted = histogram(values)
    found = percentile(counted, percent)
    tail = (100 - percent) / 2
    edge = 1.01 * counted.width
    low = -np.percentile(-values, 100 - tail, method="inverted_cdf")
    assert found.low == pytest.approx(min(low, 0), abs=edge)
    assert found.high == pytest.approx(np.percentile(values, 100 - tail, method="inverted_cdf"), abs=edge)
    left_out = np.mean((values < found.low) | (values > found.high))
    assert left_out <= (100 - percent) / 100
    symmetric = percentile(counted, percent, True)
    assert symmetric.low == -symmetric.high
    assert symmetric.high == pytest.approx(np.percentile(np.abs(values), percent, method="inverted_cdf"), abs=edge)


def test_the_whole_percentile_is_min_max() -> None:
    values = np.array([-1.0, 0.5, 3.0])
    assert percentile(histogram(values), 100) == (-1, 3)
    assert percentile(histogram(values), 100, True) == (-3, 3)


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0])
def test_the_percentile_of_a_constant_is_it(value: float) -> None:
    assert percentile(histogram(np.full(7, value)), 99.9) == observed(value, value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("count", [1, 2, 300])
def test_the_moving_average_is_pytorchs(count: int) -> None:
    samples = np.random.default_rng(0).standard_normal((count, 10)).astype(np.float32)
    observer = MovingAverageMinMaxObserver()
    for sample in samples:
        observer(torch.from_numpy(sample))
    found = moving_average(samples.min(axis=1), samples.max(axis=1))
    assert found == pytest.approx((float(observer.min_val), float(observer.max_val)), rel=1e-4)
