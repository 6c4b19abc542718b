"""The nodes that TensorRT does not support, each with its place in the user's model and a replacement."""

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit import onnx_file

if TYPE_CHECKING:
    import onnx

_FIXES: Mapping[str, str] = {
    "NonZero": "the size of its output depends on values: use a mask and torch.where instead of index lists",
    "Unique": "sort and compare neighbours, or move it out of the model",
    "Det": "move it out of the model, or write out the formula for small fixed sizes",
    "StringNormalizer": "TensorRT does not support strings: tokenize before the model",
    "TfIdfVectorizer": "TensorRT does not support strings: tokenize before the model",
    "SequenceConstruct": "return a tensor (torch.stack, torch.cat) instead of a list",
    "SequenceInsert": "return a tensor (torch.stack, torch.cat) instead of a list",
    "SplitToSequence": "use torch.split with fixed sizes, or torch.chunk",
    "BitShift": "multiply or divide by powers of two",
    "Multinomial": "sample outside the model",
    "Bernoulli": "sample outside the model",
    "MatMulInteger": "it comes from dynamic quantization, which is for CPUs: quantize with --target tensorrt",
    "ConvInteger": "it comes from dynamic quantization, which is for CPUs: quantize with --target tensorrt",
    "DynamicQuantizeLinear": "it comes from dynamic quantization, which is for CPUs: quantize with --target tensorrt",
    "QuantizeLinear": "TensorRT supports only INT8 with zero points of 0: quantize with --target tensorrt",
    "DequantizeLinear": "TensorRT supports only INT8 with zero points of 0, and no INT32 biases: quantize with --target tensorrt",
}
_CUSTOM = "TensorRT needs a plugin for an operator of another domain: replace it by standard operators"
_OTHER = "replace it by other operators, export at another --opset, or optimize the model first"
_SCOPES = "pkg.torch.onnx.name_scopes"  # of torch's dynamo exporter: the modules from outside in, then the node
_SHOWN = 40


def describe_unsupported(path: Path, unsupported: Sequence[Mapping[str, Any]]) -> str:
    """Return one line for each node: its name, operator, module in the user's model, TensorRT's reason, and the fix.

    Args:
        path: the ONNX file.
        unsupported: in the form that the worker reports: the number or name of a node, or an unsupported operator.
    """
    nodes = list(onnx_file.load(path, weights=False).graph.node)
    named = {node.name: node for node in nodes if node.name}
    lines: dict[int, str] = {}  # identity of the node -> its line
    for one in unsupported:
        found = [named[one["name"]]] if one["name"] in named else []
        if not found and one["node"] is not None and 0 <= one["node"] < len(nodes):
            found = [nodes[one["node"]]]
        if not found:
            found = [node for node in nodes if node.op_type == one["op"]]
        for node in found:
            lines.setdefault(id(node), _line(node, one["why"]))
    shown = list(lines.values())[:_SHOWN]
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "".join(f"\n  - {line}" for line in [*shown, *more])


def _line(node: "onnx.NodeProto", why: str) -> str:
    module = _module(node)
    where = f" in module {module!r}" if module else ""
    fix = _CUSTOM if node.domain not in ("", "ai.onnx") else _FIXES.get(node.op_type, _OTHER)
    reason = "" if why in ("false", "no such operator") else f" ({why})"
    return f"node {node.name or '(without a name)'}, operator {node.op_type}{where}{reason}: {fix}"


def _module(node: "onnx.NodeProto") -> str | None:
    """Return the module of the user's model that a node comes from, by dynamo's metadata or the TorchScript exporter's path."""
    metadata = {entry.key: entry.value for entry in node.metadata_props}
    if _SCOPES in metadata:
        try:
            *modules, _ = ast.literal_eval(metadata[_SCOPES])
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # the file can say anything
            return None
        return str(modules[-1]) or None if modules else None
    parts = [part for part in node.name.split("/") if part]
    return ".".join(parts[:-1]) or None
