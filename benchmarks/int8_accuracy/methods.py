"""Other methods for static INT8: SmoothQuant by strength, bias correction, cross-layer equalisation, 8-bit unsigned weights; only accuracy, no times.

All weights except the unsigned ones have 7 bits, which do not overflow on any x86 processor, so the figures are the same on all of them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from int8_accuracy.judging import open_file, outputs
from int8_accuracy.tasks import Feed, Task, quality

STRENGTHS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.9)
LARGEST = 64  # of a 7-bit weight of ONNX Runtime: reduce_range gives -64 to 64

Result = dict[str, Any]


def tried(task: Task, folder: Path) -> list[Result]:
    """Return the quality of the task's model with each method, and with plain static INT8 by min-max."""
    feeds = task.evaluation()
    expected = outputs(folder / "fp32.onnx", task, feeds)
    rows = []
    for name, file in _made(task, folder):
        rows.append({"method": name, **quality(task, expected, outputs(file, task, feeds))})
        print(task.name, rows[-1], flush=True)
    return rows


def _made(task: Task, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield each method and its file, which the next one overwrites."""
    from optkit.quantization.ort_quantizer import quantizing
    from optkit.stages import QuantizeDynamic, QuantizeStatic

    source = open_file(folder / "fp32.onnx", task)
    out = folder / "method.onnx"
    keys = {"calibration": str(folder / "calibration"), "activation_type": "uint8", "format": "qdq", "smooth": 0}
    static = QuantizeStatic.model_validate(keys | {"reduce_range": True})
    with quantizing(source, folder) as prepared:
        ranges = static.calibrated(prepared, source).ranges
        static.write(prepared, ranges, source, out)
        yield "static", out
        unsigned = static.model_copy(update={"reduce_range": False, "weight_type": "uint8"})
        unsigned.write(prepared, ranges, source, out)
        yield "static, unsigned 8-bit weights", out
        static.write(_corrected(prepared, folder / "calibration"), ranges, source, out)
        yield "static, bias correction", out
        equal = _equalised(prepared)
        if equal:
            static.write(equal, static.calibrated(equal, source).ranges, source, out)
            yield "static, cross-layer equalisation", out
        if task.name != "minilm":
            return
        for strength in STRENGTHS:
            smooth = static.model_copy(update={"smooth": strength})
            model = smooth.smoothed(prepared, source)
            smooth.write(model, smooth.calibrated(model, source).ranges, source, out)
            yield f"static, SmoothQuant {strength:g}", out
            if strength == 0.75:
                dynamic = QuantizeDynamic(reduce_range=True)
                dynamic.write(model, source, out)
                yield f"dynamic, SmoothQuant {strength:g}", out
                dynamic.write(prepared, source, out)
                yield "dynamic", out


def _equalised(prepared: Path) -> Path | None:
    """Write a copy in which two convolutions with a Relu between them have weights of equal ranges, channel by channel; None without such.

    After M. Nagel et al. (below): channel i of the first is divided by s, its part in the second multiplied, s = sqrt(range 1 / range 2).
    """
    model = onnx.load(prepared)
    weights = {t.name: t for t in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    pairs = 0
    for first in [n for n in model.graph.node if n.op_type == "Conv"]:
        relu = readers.get(first.output[0], [])
        second = readers.get(relu[0].output[0], []) if len(relu) == 1 and relu[0].op_type == "Relu" else []
        if len(second) != 1 or second[0].op_type != "Conv":
            continue
        before, after = (numpy_helper.to_array(weights[n.input[1]]) for n in (first, second[0]))
        if after.shape[1] != len(before):  # in groups
            continue
        pairs += 1
        ranges = [np.maximum(np.abs(w).max(axis=axes), 1e-8) for w, axes in ((before, (1, 2, 3)), (after, (0, 2, 3)))]
        scale = np.sqrt(ranges[0] / ranges[1]).astype(np.float32)
        changed = [(first, 1, before / scale[:, None, None, None]), (second[0], 1, after * scale[:, None, None])]
        if len(first.input) > 2:
            changed.append((first, 2, numpy_helper.to_array(weights[first.input[2]]) / scale))
        for node, place, value in changed:  # others may share what it had
            node.input[place] = f"{node.input[place]}:{pairs}:{place}"
            weights[node.input[place]] = numpy_helper.from_array(value, node.input[place])
            model.graph.initializer.append(weights[node.input[place]])
    path = prepared.with_name("equal.onnx")
    onnx.save(model, path)
    return path if pairs else None


def _corrected(prepared: Path, calibration: Path) -> Path:
    """Write a copy whose biases correct the mean error that quantized weights add to each output channel.

    After M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, with the mean over the
    calibration data in the place of one from batch normalization.
    """
    model = onnx.load(prepared)
    weights = {t.name: t for t in model.graph.initializer}
    layers = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm", "MatMul") and n.input[1] in weights]
    feeds = [dict(np.load(file)) for file in sorted(calibration.glob("*.npz"))]
    for node, mean in zip(layers, _added_means(model, layers, feeds), strict=True):
        name = f"{node.name}:correction"
        if len(node.input) > 2:  # the bias of a Conv or Gemm, a constant that others may share
            bias = numpy_helper.to_array(weights[node.input[2]])
            node.input[2] = name
            model.graph.initializer.append(numpy_helper.from_array((bias - mean).astype(np.float32), name))
            continue
        shape = (-1, *([1] * (len(weights[node.input[1]].dims) - 2))) if node.op_type == "Conv" else (-1,)
        model.graph.initializer.append(numpy_helper.from_array((-mean).astype(np.float32).reshape(shape), name))
        before, node.output[0] = node.output[0], f"{name}:raw"
        place = list(model.graph.node).index(node) + 1
        model.graph.node.insert(place, helper.make_node("Add", [node.output[0], name], [before], name))
    path = prepared.with_name("corrected.onnx")
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


def _added_means(model: onnx.ModelProto, layers: Sequence[onnx.NodeProto], feeds: Sequence[Feed]) -> list[np.ndarray]:
    """Return for each layer the mean error, over the data, that the rounding of its weights adds to each output channel."""
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    weights = {t.name: t for t in model.graph.initializer}
    for i, node in enumerate(layers):
        weight = numpy_helper.to_array(weights[node.input[1]])
        over = tuple(axis for axis in range(weight.ndim) if axis != _output_axis(node))
        scale = np.maximum(np.abs(weight).max(axis=over, keepdims=True) / LARGEST, 1e-30)
        probe.graph.initializer.append(
            numpy_helper.from_array((np.rint(weight / scale) * scale - weight).astype(np.float32), f"d{i}")
        )
        layer = probe.graph.node.add()
        layer.CopyFrom(node)
        layer.name, layer.input[1], layer.output[0] = f"d{i}", f"d{i}", f"added{i}"
        del layer.input[2:]
        probe.graph.output.append(helper.make_empty_tensor_value_info(f"added{i}"))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    sums, counts = [0.0] * len(layers), [0] * len(layers)
    for feed in feeds:
        for i, added in enumerate(session.run([f"added{i}" for i in range(len(layers))], feed)):
            rows = np.moveaxis(added, 1 if layers[i].op_type == "Conv" else -1, -1)
            rows = rows.reshape(-1, rows.shape[-1])
            sums[i], counts[i] = sums[i] + rows.sum(axis=0, dtype=np.float64), counts[i] + len(rows)
    return [total / count for total, count in zip(sums, counts, strict=True)]


def _output_axis(node: onnx.NodeProto) -> int:
    """Return the axis of a layer's weight that counts its outputs."""
    return 0 if node.op_type == "Conv" or any(a.name == "transB" and a.i for a in node.attribute) else 1
