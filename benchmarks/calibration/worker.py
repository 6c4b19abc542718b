"""One calibration in a separate process: `worker.py TOOL METHOD MODEL SAMPLES RESULT`.

It runs with any interpreter that has the tool, and imports nothing else. The time is that of the calibration, with sessions and searches but
without imports; for Olive and modelopt, which have no separate calibration, it is the time of quantizing. The memory is the peak of the whole
process.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

Ranges = dict[str, tuple[float, float]]
OPS = ["Conv", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Reshape",
       "Transpose", "Flatten", "Squeeze", "Unsqueeze"]  # fmt: skip
SIZE = 224


class Images:
    """Seeded images of one sample a feed, 32 of them repeated; they are cheap to make, so they add little to the measured time."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.peaks_mib: dict[int, float] = {}  # of the process when so many samples had been taken
        self._base = np.random.default_rng(0).standard_normal((16, 3, SIZE, SIZE)).astype(np.float32)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return (self.at(number) for number in range(self.count))

    def at(self, number: int) -> dict[str, np.ndarray]:
        """Return one sample: a base image, shifted."""
        if number and number & (number - 1) == 0:
            self.peaks_mib[number] = _peak_mib()
        return {"image": np.roll(self._base[number % 16][None], 7 * number, axis=3)}


def floor(model: Path, images: Images, _: str) -> Ranges:
    """Run the same forward passes in one session, without storing outputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for feed in images:
        session.run(None, feed)
    return {}


def optkit(model: Path, images: Images, method: str) -> Ranges:
    """Calibrate with optkit; `entropy/8` samples one element in 8."""
    from optkit.quantization.calibration.collect import calibrate
    from optkit.quantization.calibration.settings import CalibrationSettings

    name, _, sample = method.partition("/")
    found = calibrate(model, OPS, images, CalibrationSettings(method=name, sample=int(sample or 1)))
    # Without the tensors that take over the range of a Relu behind them, which ONNX Runtime leaves to its quantizer.
    return {name: tuple(found.ranges[name]) for name in found.statistics.lows}


def onnxruntime(model: Path, images: Images, method: str) -> Ranges:
    """Calibrate with ONNX Runtime's calibrators; `minmax/strided` reads one sample at a time, as CalibStridedMinMax=1 does."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    name, _, strided = method.partition("/")
    methods = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile,
               "entropy": CalibrationMethod.Entropy}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        augmented = str(Path(folder) / "augmented.onnx")
        calibrator = create_calibrator(model, OPS, augmented, methods[name], extra_options={"symmetric": False})
        reader = _reader(images)
        if strided:
            for start in range(0, len(images), 1):
                reader.set_range(start, start + 1)
                calibrator.collect_data(reader)
        else:
            calibrator.collect_data(reader)
        data = calibrator.compute_data().data
    return {name: tuple(float(np.ravel(end)[0]) for end in found.range_value) for name, found in data.items()}


def modelopt(model: Path, images: Images, method: str) -> Ranges:
    """Quantize with NVIDIA's modelopt."""
    from modelopt.onnx.quantization import quantize

    with tempfile.TemporaryDirectory() as folder:
        quantize(
            str(model),
            calibration_data_reader=_reader(images),
            calibration_method={"minmax": "max", "entropy": "entropy"}[method],
            calibration_eps=["cpu"],
            output_path=str(Path(folder) / "model.onnx"),
            high_precision_dtype="fp32",
            log_level="ERROR",
        )
    return {}


def olive(model: Path, images: Images, method: str) -> Ranges:
    """Quantize with Olive, with data from a user script as in its documentation."""
    from olive.workflows import run

    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "data.py"
        script.write_text(_OLIVE_SCRIPT.format(here=str(Path(__file__).parent), count=len(images)))
        data = {
            "name": "images",
            "user_script": str(script),
            "load_dataset_config": {"type": "images_dataset"},
            "dataloader_config": {"batch_size": 1},
        }
        static = {"type": "OnnxStaticQuantization", "data_config": "images", "calibrate_method": _OLIVE_METHODS[method]}
        run(
            {
                "input_model": {"type": "ONNXModel", "model_path": str(model)},
                "data_configs": [data],
                "passes": {"quantize": static},
                "output_dir": str(Path(folder) / "out"),
                "cache_dir": str(Path(folder) / "cache"),
                "log_severity_level": 4,
            }
        )
        if not list(Path(folder).joinpath("out").rglob("*.onnx")):
            raise RuntimeError("Olive wrote no model")
    return {}


_OLIVE_METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
_OLIVE_SCRIPT = """\
import sys

sys.path.insert(0, {here!r})

from olive.data.registry import Registry
from worker import Images


class Dataset:
    def __len__(self):
        return {count}

    def __getitem__(self, number):
        return {{"image": self.images.at(number)["image"][0]}}, 0

    images = Images({count})


@Registry.register_dataset()
def images_dataset(**kwargs):
    return Dataset()
"""


def _reader(images: Images) -> "object":
    """Return the images as ONNX Runtime's calibrators read them, all at once or a part at a time."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(images)

        def __len__(self) -> int:
            return len(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._left, None)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._left = (images.at(number) for number in range(start_index, end_index))

        def get_first(self) -> dict[str, np.ndarray]:  # modelopt requires it
            return images.at(0)

        def rewind(self) -> None:
            self._left = iter(images)

    return Reader()


TOOLS: dict[str, Callable[[Path, Images, str], Ranges]] = {
    "floor": floor, "optkit": optkit, "onnxruntime": onnxruntime, "olive": olive, "modelopt": modelopt
}  # fmt: skip
_IMPORTS = {"optkit": ("onnx", "optkit.quantization.calibration"), "onnxruntime": ("onnxruntime.quantization",),
            "olive": ("olive.workflows",), "modelopt": ("modelopt.onnx.quantization",)}  # fmt: skip


def _peak_mib() -> float:
    """Return the peak of this process; the kernel's `ru_maxrss` would include that of the parent process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def main(tool: str, method: str, model: str, samples: str, result: str) -> None:
    """Measure, and write seconds, peak memory and ranges as JSON."""
    os.environ.setdefault("OLIVE_DISABLE_TELEMETRY", "1")
    for module in ("onnxruntime", *_IMPORTS.get(tool, ())):
        __import__(module)
    images = Images(int(samples))
    started, cpu = time.perf_counter(), time.process_time()
    ranges = TOOLS[tool](Path(model), images, method)
    found = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": _peak_mib(),
        "peaks_mib": images.peaks_mib,
        "ranges": ranges,
    }
    Path(result).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
