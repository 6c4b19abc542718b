"""One tool other than optkit, with its defaults, on one ONNX file; a separate process with the tool's own Python.

    python attempt.py TOOL MODEL CALIBRATION OUTPUT

CALIBRATION is a folder of .npz files, one feed each. It imports nothing from optkit, and only the tool that it runs.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Feed = dict[str, np.ndarray]


def feeds(folder: Path) -> Iterator[Feed]:
    """Yield the feeds of a folder."""
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as archive:
            yield dict(archive)


def ort_static(model: Path, calibration: Path, output: Path) -> None:
    """ONNX Runtime as its documentation shows it: preprocess, then quantize_static, which gives S8S8 in Q/DQ by min-max."""
    _ort_static(model, calibration, output, {})


def ort_static_advised(model: Path, calibration: Path, output: Path) -> None:
    """The same with what its documentation advises for x86: unsigned activations, scales per channel, 7 bits where VNNI is missing."""
    from onnxruntime.quantization import QuantType

    _ort_static(model, calibration, output, {"activation_type": QuantType.QUInt8, **_advised()})


def _ort_static(model: Path, calibration: Path, output: Path, settings: dict[str, Any]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds = feeds(calibration)

        def get_next(self) -> Feed | None:
            return next(self._feeds, None)

    prepared = output.with_suffix(".prepared.onnx")
    quant_pre_process(model, prepared, skip_symbolic_shape=True)
    quantize_static(prepared, output, Reader(), **settings)
    prepared.unlink()


def ort_dynamic(model: Path, calibration: Path, output: Path) -> None:  # noqa: ARG001
    """ONNX Runtime's quantize_dynamic."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(model, output)


def ort_dynamic_advised(model: Path, calibration: Path, output: Path) -> None:  # noqa: ARG001
    """The same with scales per channel, and 7 bits where VNNI is missing."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(model, output, **_advised())


def _advised() -> dict[str, Any]:
    narrow = "vnni" not in Path("/proc/cpuinfo").read_text()
    return {"per_channel": True, "reduce_range": narrow}


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

    quantize(
        str(model),
        quantize_mode="int8",
        calibration_data=_one_array(list(feeds(calibration))),
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=str(output),
        log_level="ERROR",
    )


def _one_array(data: list[Feed]) -> Feed:
    """Return all samples in one array an input, as modelopt takes them: token ids are padded with 0, as their masks are."""
    joined = {}
    for name in data[0]:
        longest = np.max([feed[name].shape[1:] for feed in data], axis=0)
        pads = [[(0, 0), *((0, n - m) for n, m in zip(longest, feed[name].shape[1:], strict=True))] for feed in data]
        joined[name] = np.concatenate([np.pad(feed[name], pad) for feed, pad in zip(data, pads, strict=True)])
    return joined


def inc_static(model: Path, calibration: Path, output: Path) -> None:
    """Intel Neural Compressor 2's static quantization."""
    _inc(model, calibration, output, "static", {})


def inc_dynamic(model: Path, calibration: Path, output: Path) -> None:
    """Intel Neural Compressor 2's dynamic quantization."""
    _inc(model, calibration, output, "dynamic", {})


def inc_smoothquant(model: Path, calibration: Path, output: Path) -> None:
    """The same, static, after SmoothQuant with its usual strength of 0.5."""
    _inc(model, calibration, output, "static", {"smooth_quant": True, "smooth_quant_args": {"alpha": 0.5}})


def _inc(model: Path, calibration: Path, output: Path, approach: str, recipes: dict[str, Any]) -> None:
    from neural_compressor import PostTrainingQuantConfig, quantization, set_workspace

    set_workspace(str(output.with_suffix(".workspace")))

    class Loader:
        batch_size = 1

        def __iter__(self) -> Iterator[tuple[Feed, int]]:
            return ((feed, 0) for feed in feeds(calibration))

    samples = sum(1 for _ in feeds(calibration))
    settings = PostTrainingQuantConfig(approach=approach, recipes=recipes, calibration_sampling_size=[samples])
    made = quantization.fit(str(model), settings, calib_dataloader=Loader() if approach == "static" else None)
    made.save(str(output))


if __name__ == "__main__":
    os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"
    _tool, _model, _calibration, _output = sys.argv[1:]
    globals()[_tool.replace("-", "_").replace(" ", "_")](Path(_model), Path(_calibration), Path(_output))
