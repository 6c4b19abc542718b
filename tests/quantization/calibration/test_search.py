import numpy as np
import pytest
from scipy import optimize, stats

from optkit.quantization.calibration.histogram import Histogram
from optkit.quantization.calibration.ranges import Range, observed
from optkit.quantization.calibration.search import entropy, mse

NORMAL = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
SEARCHES = [entropy, mse]


def histogram(values: np.ndarray) -> Histogram:
    counted = Histogram()
    values = values.astype(np.float32)
    counted.add(values, float(values.min()), float(values.max()))
    return counted


def whole(values: np.ndarray, symmetric: bool = False) -> Range:
    return observed(float(values.min()), float(values.max()), symmetric)


def squared_error(values: np.ndarray, range_: Range, symmetric: bool = False) -> float:
    """Quantize as ONNX Runtime does, and compare."""
    levels = 255 if symmetric else 256
    scale = (range_.high - range_.low) / (levels - 1)
    zero_point = np.rint(-range_.low / scale)
    integers = np.clip(np.rint(values / scale) + zero_point, 0, levels - 1)
    return float(np.sum((values - (integers - zero_point) * scale) ** 2))


def gain_db(values: np.ndarray, found: Range, symmetric: bool = False) -> float:
    """Return by how much the SQNR in a range is above that of min-max."""
    ratio = squared_error(values, whole(values, symmetric), symmetric) / squared_error(values, found, symmetric)
    return float(10 * np.log10(ratio))


def relu(values: np.ndarray) -> np.ndarray:
    return np.maximum(values, 0)


def gelu(values: np.ndarray) -> np.ndarray:
    return values * stats.norm.cdf(values)


def random_density(rng: np.random.Generator) -> np.ndarray:
    """Return values of one of many shapes: peaked, heavy-tailed, one-sided, clipped, discrete, mixed, with outliers, few or many."""
    count = int(10 ** rng.uniform(1.5, 5))
    shapes = [
        lambda: rng.standard_normal(count),
        lambda: rng.laplace(size=count),
        lambda: rng.uniform(-rng.uniform(), rng.uniform(), count),
        lambda: rng.standard_t(rng.uniform(1.5, 6), count),
        lambda: rng.exponential(size=count) ** rng.uniform(0.5, 3),
        lambda: gelu(rng.standard_normal(count) * rng.uniform(0.5, 5)),
        lambda: np.clip(rng.standard_normal(count) * 4, 0, 6),
        lambda: rng.integers(-5, 200, count).astype(float),
        lambda: np.concatenate([rng.normal(-3, 0.1, count), rng.normal(5, 1, count)]),
        lambda: np.append(rng.standard_normal(count), rng.uniform(5, 200)),
        lambda: 1 / (1 + np.exp(-rng.standard_normal(count) * rng.uniform(1, 10))),
        lambda: np.where(rng.random(count) < 0.95, 0, rng.gamma(2, size=count)),
    ]
    values = shapes[rng.integers(len(shapes))]() * 10 ** rng.uniform(-4, 4)
    values = relu(values) if rng.random() < 0.3 else values
    return (values + rng.choice([0, 0, 1]) * values.std() * rng.normal()).astype(np.float32)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("search", SEARCHES)
def test_no_density_loses_half_a_decibel_to_min_max(search, symmetric: bool) -> None:
    rng = np.random.default_rng(7)
    for trial in range(300):
        values = random_density(rng).astype(np.float64)
        found = search(histogram(values), symmetric)
        full = whole(values, symmetric)
        assert full.low <= found.low <= 0 <= found.high <= full.high
        if full.high > full.low and squared_error(values, full, symmetric) > 0:
            assert gain_db(values, found, symmetric) > -0.5, (trial, found, full)


def best_by_hand(values: np.ndarray, symmetric: bool) -> float:
    """Return the least error of a fine grid over both ends, quantizing the values themselves."""
    full = whole(values, symmetric)
    fractions = np.linspace(0.01, 1, 150) if symmetric else np.linspace(0.02, 1, 40)
    pairs = [(f, f) for f in fractions] if symmetric else [(a, b) for a in fractions for b in fractions]
    return min(squared_error(values, Range(full.low * a, full.high * b), symmetric) for a, b in pairs)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_mse_is_as_good_as_a_search_by_hand(seed: int, symmetric: bool) -> None:
    rng = np.random.default_rng(seed)
    draws = [rng.standard_normal, rng.laplace, rng.exponential, lambda size: rng.standard_t(3, size)]
    values = draws[seed % 4](size=3000)
    values[rng.integers(3000)] *= 5
    found = mse(histogram(values), symmetric)
    assert squared_error(values, found, symmetric) < 1.03 * best_by_hand(values, symmetric)


def optimal_clip(density: stats.rv_continuous, step_of: float) -> float:
    """Return the clipping point that minimises rounding plus clipping error for a density on both sides of zero."""

    def error(clip: float) -> float:
        tail = density.expect(lambda x: (x - clip) ** 2, lb=clip, ub=np.inf)
        return (clip / step_of) ** 2 / 12 * (1 - 2 * density.sf(clip)) + 2 * tail

    return float(optimize.minimize_scalar(error, bounds=(1, 15), method="bounded").x)


@pytest.mark.parametrize(("density", "published"), [(stats.norm(), 3.92), (stats.laplace(), 9.89)])
def test_mse_finds_the_optimal_clipping_of_a_known_density(density, published: float) -> None:
    """The optimum follows from the density; it is that which Banner et al. tabulate for 8 bits."""
    right = optimal_clip(density, 127)
    assert right == pytest.approx(published, rel=0.02)
    values = density.ppf((np.arange(1_000_000) + 0.5) / 1_000_000)
    assert mse(histogram(values), True).high == pytest.approx(right, rel=0.05)
    found = mse(histogram(values), False)
    assert found.high == pytest.approx(right, rel=0.06)
    assert found.low == pytest.approx(-right, rel=0.06)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_uniform_density_is_not_clipped(search, symmetric: bool) -> None:
    values = np.linspace(-1, 1, 100_000)
    assert search(histogram(values), symmetric) == pytest.approx((-1, 1), rel=0.01)


@pytest.mark.parametrize("search", SEARCHES)
def test_the_ends_of_an_asymmetric_range_move_apart(search) -> None:
    """An outlier on one side costs only that side."""
    values = np.append(relu(NORMAL) + 0.5 * np.minimum(NORMAL, 0), 100.0)
    found = search(histogram(values), False)
    assert found.high < 0.6 * values.max()
    assert found.low < 0.7 * values.min()


@pytest.mark.parametrize("search", SEARCHES)
def test_a_long_tail_is_cut_and_gains_by_it(search) -> None:
    values = np.random.default_rng(3).standard_t(3, size=1_000_000)
    found = search(histogram(values), False)
    assert found.high < values.max() / 2
    assert gain_db(values, found) > 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [300, 3000, 300_000])
@pytest.mark.parametrize("shape", ["normal", "uniform", "relu", "clipped", "exponential"])
def test_entropy_leaves_well_shaped_values_alone_however_few(shape: str, count: int, seed: int) -> None:
    """Neither the noise of few samples nor the zeros of ReLU may shrink the range; both once did, to a third."""
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal(count)
    values = {
        "normal": drawn,
        "uniform": rng.uniform(-1, 1, count),
        "relu": relu(drawn),
        "clipped": np.clip(drawn * 4, 0, 6),
        "exponential": rng.exponential(size=count),
    }[shape]
    assert gain_db(values, entropy(histogram(values), False)) > -0.5


def divergence_by_hand(counted: Histogram, low: float, high: float) -> float:
    """The definition, written bin by bin."""
    counts = dict(zip(counted.centres, counted.counts, strict=True))
    centres = np.array(sorted(counts))
    zero = len(centres) // 2
    counts[centres[zero]] = counts[centres[zero - 1]] + counts[centres[zero + 1]]
    scale = (high - low) / 255
    zero_point = round(-low / scale)
    inside = [c for c in centres if low <= c <= high and counts[c]]
    if len(inside) < 2:
        return np.inf
    p = {c: counts[c] for c in inside}
    p[inside[0]] += sum(counts[c] for c in centres if c < low)
    p[inside[-1]] += sum(counts[c] for c in centres if c > high)
    groups: dict[int, list[float]] = {}
    for c in inside:
        groups.setdefault(min(max(round(c / scale) + zero_point, 0), 255), []).append(c)
    q = {c: sum(counts[o] for o in group) / len(group) for group in groups.values() for c in group}
    n, kept = sum(p.values()), sum(q.values())
    kl = sum(p[c] / n * np.log(p[c] / n / (q[c] / kept)) for c in inside)
    return kl - (len(inside) - len(groups)) / (2 * n)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", ["laplace", "exponential", "standard_normal"])
def test_entropy_is_the_least_divergence_among_candidates_near_min_max(shape: str, seed: int) -> None:
    values = getattr(np.random.default_rng(seed), shape)(size=20_000)
    counted = histogram(values)
    found = entropy(counted, False)
    mine = divergence_by_hand(counted, *found)
    full = whole(values)
    fractions = 2.0 ** (-np.arange(56) / 8)
    others = [Range(full.low * f, full.high * f) for f in fractions]
    allowed = [r for r in others if gain_db(values, r) > -0.05]
    assert mine <= min(divergence_by_hand(counted, *r) for r in allowed) + 1e-9


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("value", [0.0, 3.0, -3.0])
def test_a_constant_has_a_range(search, value: float) -> None:
    values = np.full(7, value)
    assert search(histogram(values), False) == observed(value, value)
    assert search(histogram(values), True) == observed(value, value, True)
