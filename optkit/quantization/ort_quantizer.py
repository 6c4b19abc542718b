"""ONNX Runtime's quantizer for the two ONNX stages: preparation of the graph, translation of errors, and layers that stay in float."""

import contextlib
import errno
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optkit import onnx_file
from optkit.artifact import Artifact
from optkit.errors import OptkitError, StageError, first_line
from optkit.system.space import check_space
from optkit.system.temporary import libraries_write_to, temporary_folder

if TYPE_CHECKING:
    import onnx


@contextlib.contextmanager
def quantizing(source: Artifact, out_dir: Path) -> Iterator[Path]:
    """Yield the path of a prepared copy of a model (optimized, shapes inferred), the input of the quantizer.

    ONNX Runtime's errors inside the block become StageErrors, and its log is shown with `-vv`. The copy is in a folder in `out_dir` that
    is deleted after the block, because the system's temporary folder may be in memory. External data stays external.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    check_space(out_dir, source.size_bytes, "the prepared copy of the model")
    with temporary_folder(out_dir, "prepared") as folder, _quiet_root_logger():
        prepared = folder / "prepared.onnx"
        try:
            # Symbolic shape inference fails on many real graphs, and the quantizer does not need it.
            with libraries_write_to(folder):
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
                    "no space is left on the disk of the output; quantization needs space for a copy of the model. Free space there."
                ) from e
            raise StageError(f"the model cannot be quantized: {e}") from e
        except Exception as e:  # the quantizer raises plain exceptions of many types
            raise StageError(f"the model cannot be quantized: {first_line(e)}") from e


def quantize_without_failing(
    quantize: "Callable[[Sequence[onnx.NodeProto]], None]", nodes: "Sequence[onnx.NodeProto]"
) -> dict[str, str]:
    """Quantize all nodes but those on which the quantizer fails, and return these with the reasons.

    The failing nodes are found by halving, because the quantizer's errors name no node.

    Raises:
        Exception: of the quantizer, where it fails on every node.
    """
    try:
        quantize(nodes)
    except OSError:
        raise
    except Exception as e:  # the quantizer raises plain exceptions of many types
        failing = _failing(quantize, nodes, e)
        rest = [node for node in nodes if node.name not in failing]
        if not rest:
            raise StageError(f"node {nodes[0].name!r} cannot be quantized: {failing[nodes[0].name]}") from e
        quantize(rest)
        return failing
    return {}


def _failing(
    quantize: "Callable[[Sequence[onnx.NodeProto]], None]", nodes: "Sequence[onnx.NodeProto]", error: Exception
) -> dict[str, str]:
    """Return the nodes on which the quantizer fails, each with its error; `error` is that of all these nodes together."""
    if len(nodes) == 1:
        return {nodes[0].name: first_line(error)}
    found: dict[str, str] = {}
    for half in (nodes[: len(nodes) // 2], nodes[len(nodes) // 2 :]):
        try:
            quantize(half)
        except OSError:
            raise
        except Exception as e:  # as above
            found |= _failing(quantize, half, e)
    return found


def _tidy(path: Path) -> None:
    """Give every node a unique name, and drop the declared shapes of weights, which the dynamo exporter writes.

    Nodes are selected by name. The quantizer turns Gemm into MatMul and transposes the weight; shape inference then rejects the old
    shape.
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
    """Insert a Sum with one input before every convolution and Gemm with float weights that reads a dequantized activation.

    It changes no value. Without it, ONNX Runtime silently quantizes the layer per tensor when it loads the file: its optimizer
    WeightBiasQuantization mistakes the Q/DQ nodes of the neighbours for those of the layer. (It also skips an Identity.)
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
    """Show the quantizer's messages to the root logger only at level DEBUG: they are not for optkit's user."""
    root = logging.getLogger()

    def only_debugging(_: logging.LogRecord) -> bool:
        return root.isEnabledFor(logging.DEBUG)

    root.addFilter(only_debugging)
    try:
        yield
    finally:
        root.removeFilter(only_debugging)
