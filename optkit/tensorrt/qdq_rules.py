"""TensorRT's requirements for ONNX models with Q/DQ nodes, as rules over the graph; each rule has an id and finds the broken nodes.

TensorRT supports only explicit quantization: symmetric INT8 in QuantizeLinear and DequantizeLinear pairs. ONNX Runtime's defaults break
several of these rules. TensorRT then rejects the file, or builds an engine that does not compute in INT8.
Source: NVIDIA TensorRT documentation, "Working with Quantized Types", and builds with TensorRT-RTX 1.7.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from optkit import onnx_file
from optkit.record import Record

if TYPE_CHECKING:
    import onnx

# The integer operators of ONNX and of ONNX Runtime; TensorRT's parser does not support them.
_INTEGER_OPS = frozenset({
    "MatMulInteger", "ConvInteger", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLSTM",
    "QGemm", "QAttention", "QEmbedLayerNormalization",
})  # fmt: skip
_PAIR = ("QuantizeLinear", "DequantizeLinear")
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # the second input is the weight


class BrokenRule(Record):
    """A rule that a graph breaks."""

    rule: str
    where: str  # the first node or tensor that breaks it
    what: str
    count: int  # of all nodes and tensors that break it

    def __str__(self) -> str:
        others = f" (and {self.count - 1} more)" if self.count > 1 else ""
        return f"{self.rule}: {self.where}: {self.what}{others}"


class _Graph:
    """A graph with look-ups by name."""

    def __init__(self, path: Path) -> None:
        graph = onnx_file.load(path).graph
        self.nodes = list(graph.node)
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.producer = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def of(self, *ops: str) -> "Iterator[onnx.NodeProto]":
        return (node for node in self.nodes if node.op_type in ops)

    def made_by(self, name: str, op: str) -> "onnx.NodeProto | None":
        node = self.producer.get(name)
        return node if node is not None and node.op_type == op else None

    def values(self, node: "onnx.NodeProto", place: int) -> np.ndarray | None:
        """Return the constant at one input of a node; None where this input is not a constant."""
        from onnx import numpy_helper

        tensor = self.tensors.get(node.input[place]) if len(node.input) > place else None
        return None if tensor is None else numpy_helper.to_array(tensor)


Found = Iterator[tuple[str, str]]  # the node, and the fault


def broken_rules(path: Path) -> list[BrokenRule]:
    """Return the rules of TensorRT that an ONNX model with INT8 breaks, each with the first node that breaks it.

    Raises:
        ArtifactError: the file is not an ONNX model.
    """
    graph = _Graph(path)
    broken = []
    for rule, check in RULES.items():
        found = list(check(graph))
        if found:
            where, what = found[0]
            broken.append(BrokenRule(rule=rule, where=where, what=what, count=len(found)))
    return broken


def _no_integer_ops(graph: _Graph) -> Found:
    for node in graph.nodes:
        if node.op_type in _INTEGER_OPS or node.op_type.startswith("QLinear"):
            yield node.name, f"is a {node.op_type}; expected Q/DQ nodes around the float operator"


def _has_pairs(graph: _Graph) -> Found:
    if not any(graph.of(*_PAIR)):
        yield "the graph", "has no QuantizeLinear and no DequantizeLinear, so nothing would compute in INT8"


def _no_int32_bias(graph: _Graph) -> Found:
    for node in graph.of("DequantizeLinear"):
        values = graph.values(node, 0)
        if values is not None and values.dtype == np.int32:
            yield (
                node.name,
                f"dequantizes the int32 bias {node.input[0]!r}; expected a bias in float (QuantizeBias=False)",
            )


def _int8_only(graph: _Graph) -> Found:
    for node in graph.of(*_PAIR):
        zero = graph.values(node, 2)
        if zero is not None and zero.dtype not in (np.int8, np.int32):  # int32 is the bias, which has its own rule
            yield node.name, f"is in {zero.dtype}; expected int8"


def _zero_points(graph: _Graph) -> Found:
    for node in graph.of(*_PAIR):
        zero = graph.values(node, 2)
        if len(node.input) > 2 and (zero is None or zero.any()):
            what = "is computed" if zero is None else f"is {zero.ravel()[np.flatnonzero(zero)[0]]}"
            yield node.name, f"has a zero point that {what}; expected 0 (symmetric)"


def _scales(graph: _Graph) -> Found:
    for node in graph.of(*_PAIR):
        scale = graph.values(node, 1)
        if scale is None:
            yield node.name, "has a computed scale; expected a constant"
        elif not (np.isfinite(scale).all() and (scale > 0).all()):
            yield node.name, "has a scale that is zero or not finite; expected positive numbers"


def _per_tensor_activations(graph: _Graph) -> Found:
    for node in graph.of("QuantizeLinear"):
        scale = graph.values(node, 1)
        if node.input[0] not in graph.tensors and scale is not None and scale.size > 1:
            yield (
                node.name,
                f"quantizes an activation with {scale.size} scales; expected one (per channel is for weights)",
            )


def _paired(graph: _Graph) -> Found:
    for node in graph.of("QuantizeLinear"):
        for reader in graph.readers.get(node.output[0], []):
            if reader.op_type != "DequantizeLinear":
                yield node.name, f"is read by {reader.op_type} {reader.name!r}; expected DequantizeLinear"
    for node in graph.of("DequantizeLinear"):
        if node.input[0] not in graph.tensors and graph.made_by(node.input[0], "QuantizeLinear") is None:
            yield node.name, f"reads {node.input[0]!r}, which no QuantizeLinear writes"


def _weight_pairs(graph: _Graph) -> Found:
    for node in graph.of(*_WEIGHTED):
        before = graph.made_by(node.input[1], "DequantizeLinear")
        if before is not None and before.input[0] in graph.tensors:
            yield (
                node.name,
                "has a weight stored in INT8 behind DequantizeLinear; expected a float weight with a Q/DQ pair",
            )


def _both_inputs(graph: _Graph) -> Found:
    for node in graph.of(*_WEIGHTED):
        on_input, on_weight = (graph.made_by(name, "DequantizeLinear") is not None for name in node.input[:2])
        if on_weight and not on_input:  # the opposite case is a layer that was left in float
            yield node.name, "has Q/DQ on its weight but not on its input; expected Q/DQ on both, else it runs in float"


RULES: dict[str, Callable[[_Graph], Found]] = {
    "trt-integer-op": _no_integer_ops,
    "trt-no-qdq": _has_pairs,
    "trt-int32-bias": _no_int32_bias,
    "trt-int8-only": _int8_only,
    "trt-zero-point": _zero_points,
    "trt-scale": _scales,
    "trt-per-tensor-activation": _per_tensor_activations,
    "trt-pair": _paired,
    "trt-weight-pair": _weight_pairs,
    "trt-both-inputs": _both_inputs,
}
