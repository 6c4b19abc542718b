"""What is promised of ranges, on a real network: the ResNet-18 of the recipes, with random weights."""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader
from onnxruntime.quantization.calibrate import CalibrationMethod as OrtMethod
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.quantization.shape_inference import quant_pre_process

from optkit.artifact.tensors import Feed
from optkit.quantization.calibration.batches import rows_of
from optkit.quantization.calibration.collect import calibrate
from optkit.quantization.calibration.settings import CalibrationMethod, CalibrationSettings
from tests.support import RECIPES

OPS = ("Conv", "Gemm", "Add", "Relu", "MaxPool", "GlobalAveragePool", "Flatten")
IMAGES = np.random.default_rng(0).standard_normal((24, 3, 32, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sys.path.insert(0, str(RECIPES))
    from resnet import ResNet18

    folder = tmp_path_factory.mktemp("resnet")
    torch.manual_seed(0)
    module = ResNet18(classes=10).train()
    with torch.no_grad():
        module(torch.from_numpy(IMAGES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), (torch.zeros(2, 3, 32, 32),), str(folder / "raw.onnx"), dynamo=False, opset_version=17,
            input_names=["image"], output_names=["logits"], dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )  # fmt: skip
        quant_pre_process(folder / "raw.onnx", folder / "model.onnx", skip_symbolic_shape=True)
    return folder / "model.onnx"


def cut(size: int) -> list[Feed]:
    return [{"image": IMAGES[start : start + size]} for start in range(0, len(IMAGES), size)]


@pytest.mark.parametrize("sample", [1, 8])
@pytest.mark.parametrize("method", CalibrationMethod)
def test_batches_of_one_and_of_all_give_the_same_ranges(model: Path, method: CalibrationMethod, sample: int) -> None:
    """Equal to the last bit: the samples are put together again, so the very same batches are run."""
    settings = CalibrationSettings(method=method, sample=sample)
    whole = calibrate(model, OPS, cut(24), settings).ranges
    assert calibrate(model, OPS, cut(1), settings).ranges == whole
    assert calibrate(model, OPS, cut(7), settings).ranges == whole


def test_a_feed_of_all_samples_is_never_run_at_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    session = onnxruntime.InferenceSession.run

    def watch(self: onnxruntime.InferenceSession, names: object, feed: Feed, *rest: object) -> list[np.ndarray]:
        seen.append(rows_of(feed))
        return session(self, names, feed, *rest)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", watch)
    monkeypatch.setattr("optkit.quantization.calibration.batches._BATCH_BYTES", 2**20)
    calibrate(model, OPS, cut(24), CalibrationSettings())
    assert max(seen) <= 4
    assert sum(seen) == 24 + 1 + 4  # one to see its size, two of them together and alone


class Reader(CalibrationDataReader):
    def __init__(self) -> None:
        self._feeds: Iterator[Feed] = iter(cut(1))

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


@pytest.mark.parametrize(
    ("method", "tolerance"), [(CalibrationMethod.MINMAX, 1e-4), (CalibrationMethod.PERCENTILE, 2e-3)]
)
def test_ranges_are_those_of_onnxruntime(
    model: Path, method: CalibrationMethod, tolerance: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To a share of the width: its graph is optimized otherwise, and its percentiles are cut to 2048 bins."""
    kind = {CalibrationMethod.MINMAX: OrtMethod.MinMax, CalibrationMethod.PERCENTILE: OrtMethod.Percentile}[method]
    options = {"symmetric": False, "percentile": 99}
    calibrator = create_calibrator(model, list(OPS), str(tmp_path / "augmented.onnx"), kind, extra_options=options)
    calibrator.collect_data(Reader())
    right = {name: data.range_value for name, data in calibrator.compute_data().data.items()}
    found = calibrate(model, OPS, cut(4), CalibrationSettings(method=method, percentile=99))
    compared = set(found.statistics.lows) & set(right)
    assert len(compared) > 25
    for name in compared:
        low, high = (float(np.ravel(end)[0]) for end in right[name])
        width = max(high, 0) - min(low, 0)
        assert found.ranges[name] == pytest.approx((min(low, 0), max(high, 0)), abs=tolerance * width), name
