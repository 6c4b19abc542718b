"""What the two quantizing stages share: ONNX Runtime's preparation of the graph, its errors told as ours, and what keeps layers in float."""

import contextlib
import errno
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

from optkit import onnx_file
from optkit.artifact import Artifact
from optkit.errors import OptkitError, StageError, first_line


@contextlib.contextmanager
def quantizing(source: Artifact, out_dir: Path) -> Iterator[Path]:
    """Give the path of a prepared copy of a model (optimized, shapes inferred) to quantize from.

    What ONNX Runtime raises inside the block becomes a StageError, and what it logs is kept for `-vv`. The copy lies in a folder
    in `out_dir` that is gone after the block: the system's own temporary folder may be memory. External data stays external.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(prefix=".prepared-", dir=out_dir) as folder, _quiet_root_logger():
        prepared = Path(folder) / "prepared.onnx"
        try:
            # Symbolic shape inference fails on many real graphs, and the quantizer does without it.
            quant_pre_process(
                source.path,
                prepared,
                skip_symbolic_shape=True,
                save_as_external_data=bool(source.files),
                all_tensors_to_one_file=True,
                external_data_location=onnx_file.data_name(prepared),
            )
            _tidy(prepared)
            yield prepared
        except OptkitError:
            raise
        except OSError as e:
            if e.errno == errno.ENOSPC:
                raise StageError(
                    "no space is left on the disk of the output; a model is quantized beside it, from a copy. Make room there."
                ) from e
            raise StageError(f"the model cannot be quantized: {e}") from e
        except Exception as e:  # the quantizer raises plain exceptions of many types
            raise StageError(f"the model cannot be quantized: {first_line(e)}") from e


def _tidy(path: Path) -> None:
    """Give every node a name of its own, and drop the shapes that the dynamo exporter states for weights too.

    Nodes are selected by name. The quantizer turns Gemm into MatMul by transposing the weight, and shape inference then refuses the
    stale shape.
    """
    model = onnx_file.load(path, weights=False)
    seen: set[str] = set()
    for node in model.graph.node:
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}:{node.output[0]}"
        seen.add(node.name)
    weights = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.value_info if value.name not in weights]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    onnx_file.save(model, path)


def hold_in_float(path: Path) -> None:
    """Put a Sum of one input before every convolution and Gemm with float weights that reads a dequantized activation.

    It changes no value. Without it ONNX Runtime quantizes the layer once more when it loads the file, unseen and per tensor: its optimizer
    WeightBiasQuantization takes the Q/DQ nodes of the neighbours for those of the layer. (It looks through an Identity.)
    """
    from onnx import helper

    model = onnx_file.load(path, weights=False)
    dequantized = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    held = [
        (i, node)
        for i, node in enumerate(model.graph.node)
        if node.op_type in ("Conv", "ConvTranspose", "Gemm")
        and node.input[0] in dequantized
        and node.input[1] not in dequantized
    ]
    for i, node in reversed(held):
        read, node.input[0] = node.input[0], f"{node.name}:held"
        model.graph.node.insert(i, helper.make_node("Sum", [read], [f"{node.name}:held"], name=f"{node.name}:held"))
    if held:
        onnx_file.save(model, path)


@contextlib.contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """Lower what the quantizer logs to the root logger: advice that does not concern optkit's user."""
    root = logging.getLogger()

    def only_debugging(_: logging.LogRecord) -> bool:
        return root.isEnabledFor(logging.DEBUG)

    root.addFilter(only_debugging)
    try:
        yield
    finally:
        root.removeFilter(only_debugging)
