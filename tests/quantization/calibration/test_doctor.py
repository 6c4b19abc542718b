import numpy as np
import pytest

from optkit.artifact import Artifact
from optkit.artifact.calibration import Diagnosis, shifts
from optkit.quantization.calibration.collect import calibrate
from optkit.quantization.calibration.doctor import diagnose
from optkit.quantization.calibration.inputs import InputStatistics
from optkit.quantization.calibration.settings import CalibrationSettings
from optkit.stages import ExportOnnx
from tests.support.zoo import Make


@pytest.fixture(scope="module")
def model(make: Make) -> Artifact:
    return make("linear", ExportOnnx(exporter="torchscript", opset=17, name="for-the-doctor"))


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 4)).astype(np.float32)


def examined(model: Artifact, data: np.ndarray, histograms: bool = True) -> Diagnosis:
    feeds = [{"input": data[i : i + 50]} for i in range(0, len(data), 50)]
    found = calibrate(model.path, ("Gemm",), feeds, CalibrationSettings(), histograms=histograms)
    return diagnose(found.statistics, found.ranges)


def test_good_data_has_no_findings_but_how_much_suffices(model: Artifact) -> None:
    found = examined(model, rows(2000))
    assert found.samples == 2000
    assert found.outliers == found.duplicates == ()
    assert found.constants == {}
    assert found.settled_after < 1000
    assert found.settled_after <= found.suggested_samples < found.settled_after + 32
    assert found.long_tails == ()
    assert found.notes() == [
        f"2000 samples; the ranges stopped growing after {found.settled_after}: {found.suggested_samples} are enough"
    ]


def test_growth_ends_when_the_last_wide_sample_was_seen(model: Artifact) -> None:
    data = rows(200)
    data[95] *= 2
    data[96:] *= 0.1
    found = examined(model, data)
    assert found.settled_after == 96
    assert found.suggested_samples == 96
    shares = [point.share for point in found.growth]
    assert [point.samples for point in found.growth] == [1, 2, 4, 8, 16, 32, 64, 128, 200]
    assert shares == sorted(shares)
    assert shares[6] < 0.8 < shares[7] == shares[8] == 1


def test_ranges_that_still_grow_ask_for_more(model: Artifact) -> None:
    found = examined(model, rows(100) * np.linspace(0.1, 1, 100, dtype=np.float32)[:, None])
    assert found.suggested_samples == 200
    assert found.notes()[0] == "100 samples; the ranges were still growing at the end: try 200"


def test_outliers_are_named_by_index_the_worst_first(model: Artifact) -> None:
    data = rows(300)
    data[17] *= 20
    data[233, 0] = 3
    found = examined(model, data)
    assert [outlier.sample for outlier in found.outliers] == [17]  # beside it the other is none
    assert found.outliers[0].tensors == 2
    assert found.outliers[0].stretch > 5
    assert "1 outlier: sample 17 stretches 2 ranges" in found.notes()[1]
    data[17] /= 20
    assert [outlier.sample for outlier in examined(model, data).outliers] == [233]


def test_duplicates_and_constants_are_found(model: Artifact) -> None:
    data = rows(60)
    data[40] = data[3]
    data[55] = data[3]
    data[7] = 0.1
    found = examined(model, data)
    assert found.duplicates == ((3, 40, 55),)
    assert found.constants == {"input": (7,)}
    assert "2 duplicates: samples 3, 40, 55 are equal" in found.notes()
    assert "input 'input' is constant in 1 sample: 7" in found.notes()


def test_long_tails_saturate(model: Artifact) -> None:
    data = rows(20_000)
    data[::10_000] *= 100
    feeds = [{"input": data}]
    clipped = calibrate(model.path, ("Gemm",), feeds, CalibrationSettings(method="percentile", percentile=99.9))
    found = diagnose(clipped.statistics, clipped.ranges).long_tails
    assert found
    assert {tail.tensor for tail in found} == {"input", "output"}
    assert all(tail.inner_share < 0.1 for tail in found)
    assert all(0 < tail.clipped_share < 0.0011 for tail in found)
    assert examined(model, data, histograms=False).long_tails is None


def seen(*arrays: np.ndarray) -> tuple:
    statistics = InputStatistics()
    for array in arrays:
        statistics.add({"x": array, "ids": np.zeros((len(array), 2), np.int64)})
    return statistics.moments()


def test_moments_are_those_of_all_samples() -> None:
    values = np.random.default_rng(0).normal(5, 2, (100, 30)).astype(np.float32)
    (found,) = seen(values[:10], values[10:])
    assert found.input == "x"
    assert found.samples == 100
    assert found.mean == pytest.approx(values.mean(), rel=1e-5)
    assert found.deviation == pytest.approx(values.std(), rel=1e-5)
    assert found.mean_error == pytest.approx(values.mean(axis=1).std() / 10, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (lambda v: v, False),
        (lambda v: v + 0.1, False),
        (lambda v: v + 2, True),
        (lambda v: v * 255, True),
        (lambda v: v * 0.5, True),
    ],
)
def test_inputs_unlike_the_evaluation_data_are_found(change, differs: bool) -> None:
    rng = np.random.default_rng(0)
    mine = rng.standard_normal((200, 20)).astype(np.float32)
    right = change(rng.standard_normal((200, 20))).astype(np.float32)
    assert bool(shifts(seen(mine), seen(right))) is differs


def test_a_feed_that_is_not_finite_tells_nothing() -> None:
    assert seen(np.full((2, 3), np.nan, np.float32)) == ()
