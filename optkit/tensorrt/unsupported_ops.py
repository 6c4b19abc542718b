"""The nodes that TensorRT does not support, described so that the user finds them in their model and knows what to use instead."""

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit import onnx_file

if TYPE_CHECKING:
    import onnx

_FIXES: Mapping[str, str] = {
    "NonZero": "its output has a size that depends on values: use a mask and torch.where instead of indexing by it",
    "Unique": "sort and compare neighbours, or do it before or after the model",
    "Det": "compute it outside the model, or write it out for small fixed sizes",
    "StringNormalizer": "TensorRT has no texts: tokenize before the model",
    "TfIdfVectorizer": "TensorRT has no texts: tokenize before the model",
    "SequenceConstruct": "return a tensor (torch.stack, torch.cat) in the place of a list",
    "SequenceInsert": "return a tensor (torch.stack, torch.cat) in the place of a list",
    "SplitToSequence": "use torch.split with fixed sizes, or torch.chunk",
    "BitShift": "multiply or divide by powers of two",
    "Multinomial": "sample outside the model",
    "Bernoulli": "sample outside the model",
    "MatMulInteger": "it comes from dynamic quantization, which is for CPUs: quantize with --target tensorrt",
    "ConvInteger": "it comes from dynamic quantization, which is for CPUs: quantize with --target tensorrt",
    "DynamicQuantizeLinear": "it comes from dynamic quantization, which is for CPUs: quantize with --target tensorrt",
    "QuantizeLinear": "TensorRT takes INT8 with zero points of 0 only: quantize with --target tensorrt",
    "DequantizeLinear": "TensorRT takes INT8 with zero points of 0 only, and no INT32 biases: quantize with --target tensorrt",
}
_CUSTOM = "TensorRT needs a plugin for an operator of another domain; write it with standard operators"
_OTHER = "write it with other operators, export at another --opset, or optimize the model first"
_SCOPES = "pkg.torch.onnx.name_scopes"  # of torch's dynamo exporter: the modules from outside in, then the node itself
_SHOWN = 40


def describe_unsupported(path: Path, unsupported: Sequence[Mapping[str, Any]]) -> str:
    """Return one line for each node: its name, operator, module of the user's model, TensorRT's reason, and how to fix it.

    Args:
        path: the ONNX file.
        unsupported: as the worker reports it: the number or name of a node, or an operator of which no node is supported.
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
    """Return the module of the user's model that a node came from: from dynamo's metadata, or the TorchScript exporter's path."""
    metadata = {entry.key: entry.value for entry in node.metadata_props}
    if _SCOPES in metadata:
        try:
            *modules, _ = ast.literal_eval(metadata[_SCOPES])
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # the file can say anything
            return None
        return str(modules[-1]) or None if modules else None
    parts = [part for part in node.name.split("/") if part]
    return ".".join(parts[:-1]) or None
