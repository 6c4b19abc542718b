"""One tool that is not optkit, with its defaults, on one ONNX file; run in a process of its own, under the tool's own Python.

    python attempt.py TOOL MODEL CALIBRATION OUTPUT

CALIBRATION is a folder of .npz files, one feed each. It imports nothing of optkit, and only the tool that it runs.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

Feed = dict[str, np.ndarray]


def feeds(folder: Path) -> Iterator[Feed]:
    """Yield the feeds of a folder."""
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as archive:
            yield dict(archive)


def ort_static(model: Path, calibration: Path, output: Path) -> None:
    """ONNX Runtime as its documentation shows it: preprocess, then quantize_static, which gives S8S8 in Q/DQ by min-max."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds = feeds(calibration)

        def get_next(self) -> Feed | None:
            return next(self._feeds, None)

    prepared = output.with_suffix(".prepared.onnx")
    quant_pre_process(model, prepared, skip_symbolic_shape=True)
    quantize_static(prepared, output, Reader())
    prepared.unlink()


def ort_dynamic(model: Path, calibration: Path, output: Path) -> None:  # noqa: ARG001
    """ONNX Runtime's quantize_dynamic."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(model, output)


def olive_static(model: Path, calibration: Path, output: Path) -> None:
    """Olive's OnnxStaticQuantization."""
    from olive.data.config import DataComponentConfig, DataConfig
    from olive.data.registry import Registry
    from olive.passes.onnx.quantization import OnnxStaticQuantization

    @Registry.register_dataloader()
    def feeds_loader(dataset: object, **_: object) -> list[tuple[Feed, np.ndarray]]:  # noqa: ARG001
        return [(feed, np.zeros(1)) for feed in feeds(calibration)]

    data = DataConfig(
        name="calibration",
        load_dataset_config=DataComponentConfig(type="simple_dataset"),
        dataloader_config=DataComponentConfig(type="feeds_loader"),
    )
    _olive(OnnxStaticQuantization, {"data_config": data}, model, output)


def olive_dynamic(model: Path, calibration: Path, output: Path) -> None:  # noqa: ARG001
    """Olive's OnnxDynamicQuantization."""
    from olive.passes.onnx.quantization import OnnxDynamicQuantization

    _olive(OnnxDynamicQuantization, {}, model, output)


def _olive(kind: type, settings: dict[str, object], model: Path, output: Path) -> None:
    from olive.hardware.accelerator import DEFAULT_CPU_ACCELERATOR
    from olive.model import ONNXModelHandler
    from olive.passes.olive_pass import create_pass_from_dict

    made = create_pass_from_dict(kind, settings, disable_search=True, accelerator_spec=DEFAULT_CPU_ACCELERATOR)
    found = Path(made.run(ONNXModelHandler(str(model)), str(output)).model_path)
    if found != output:
        found.replace(output)


def modelopt(model: Path, calibration: Path, output: Path) -> None:
    """TensorRT Model Optimizer's INT8 by entropy, with the rest in FP32: the FP16 of its default is slow on CPUs."""
    from modelopt.onnx.quantization import quantize

    data = list(feeds(calibration))
    longest = {name: max(feed[name].shape[1] for feed in data) if data[0][name].ndim > 1 else 0 for name in data[0]}
    same = [feed for feed in data if all(feed[name].shape[1] == longest[name] for name in feed)] or data
    quantize(
        str(model),
        quantize_mode="int8",
        calibration_data={name: np.concatenate([feed[name] for feed in same]) for name in data[0]},
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=str(output),
        log_level="ERROR",
    )


if __name__ == "__main__":
    os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"
    _tool, _model, _calibration, _output = sys.argv[1:]
    globals()[_tool.replace("-", "_")](Path(_model), Path(_calibration), Path(_output))
