"""The graph of the mixed-precision model: switches at the activations of a float model, overridable weights, and their rounding."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optkit.stages.quantizing import WEIGHTED

if TYPE_CHECKING:
    import onnx


def make_overridable(graph: "onnx.GraphProto", weights: "Sequence[onnx.TensorProto]") -> None:
    """Declare weights as inputs of the graph: a feed overrides a weight; without a feed it keeps its value."""
    import onnx

    known = {value.name for value in graph.input}
    info = onnx.helper.make_tensor_value_info
    graph.input.extend(info(t.name, onnx.TensorProto.FLOAT, t.dims) for t in weights if t.name not in known)


def scales_of(quantized: "onnx.ModelProto") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return tensor name -> scale and zero point, found by the names that ONNX Runtime's quantizer uses."""
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in quantized.graph.initializer}
    return {
        name.removesuffix("_scale"): (numpy_helper.to_array(tensor), numpy_helper.to_array(tensors[zero]))
        for name, tensor in tensors.items()
        if name.endswith("_scale") and (zero := f"{name.removesuffix('_scale')}_zero_point") in tensors
    }


def rounded(node: "onnx.NodeProto", weight: "onnx.TensorProto", scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """Return a weight after quantization and dequantization, in float32."""
    from onnx import numpy_helper

    values: np.ndarray = numpy_helper.to_array(weight)
    shape = [1] * values.ndim
    if scale.size > 1:
        shape[_channel_axis(node, values.ndim)] = scale.size
    scale, offset = scale.reshape(shape), zero.astype(np.float32).reshape(shape)
    limits = np.iinfo(zero.dtype)
    levels = np.clip(np.rint(values / scale) + offset, limits.min, limits.max)
    rounded: np.ndarray = (levels - offset) * scale
    return rounded.astype(np.float32)


def _channel_axis(node: "onnx.NodeProto", rank: int) -> int:
    """Return the axis of the output channels in the weight of a node."""
    match node.op_type:
        case "Conv":
            return 0
        case "ConvTranspose":
            return 1
        case "Gemm":
            transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            return 0 if transposed else 1
        case _:
            return rank - 1


def add_static_switches(model: "onnx.ModelProto", quantized: "onnx.ModelProto") -> list[str]:
    """Add a switch after every activation that has a Q/DQ pair in the quantized model; return the names of these activations."""
    import onnx

    tensors = {tensor.name: tensor for tensor in quantized.graph.initializer}
    weights = {tensor.name for tensor in model.graph.initializer}
    pairs = {
        node.input[0].removesuffix("_QuantizeLinear_Input"): tuple(node.input[1:3])
        for node in quantized.graph.node
        if node.op_type == "QuantizeLinear"
    }
    pairs = {name: parameters for name, parameters in pairs.items() if name not in weights}
    graph = model.graph
    graph.initializer.extend(tensors[name] for name in dict.fromkeys(name for both in pairs.values() for name in both))
    fed = {value.name for value in graph.input}
    nodes: list[onnx.NodeProto] = []
    for name in pairs:
        if name in fed:
            nodes += _switched(name, f"{name}:switched", name, pairs[name])
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name in pairs and name in fed:
                node.input[i] = f"{name}:switched"
        outputs = [name for name in node.output if name in pairs]
        for i, name in enumerate(node.output):
            if name in pairs:
                node.output[i] = f"{name}:float"
        nodes.append(node)
        for name in outputs:
            nodes += _switched(f"{name}:float", name, name, pairs[name])
    _replace_nodes(graph, nodes)
    _declare_switches(graph, pairs)
    return list(pairs)


def _switched(tensor: str, output: str, switch: str, parameters: Sequence[str]) -> "list[onnx.NodeProto]":
    from onnx import helper

    return [
        helper.make_node("QuantizeLinear", [tensor, *parameters], [f"{output}:quantized"]),
        helper.make_node("DequantizeLinear", [f"{output}:quantized", *parameters], [f"{output}:rounded"]),
        helper.make_node("Where", [f"switch:{switch}", f"{output}:rounded", tensor], [output]),
    ]


def add_dynamic_switches(model: "onnx.ModelProto", selected: "Sequence[onnx.NodeProto]") -> list[str]:
    """Add a switch before the activation of every selected matrix product; return the names of the layers."""
    from onnx import helper

    names = {node.name for node in selected if node.op_type in WEIGHTED and node.op_type != "Gather"}
    nodes: list[Any] = []
    rounded: set[str] = set()
    for node in model.graph.node:
        if node.name in names:
            x = node.input[0]
            if x not in rounded:
                parts = [f"{x}:quantized", f"{x}:scale", f"{x}:zero"]
                nodes.append(helper.make_node("DynamicQuantizeLinear", [x], parts))
                nodes.append(helper.make_node("DequantizeLinear", parts, [f"{x}:rounded"]))
                rounded.add(x)
            nodes.append(helper.make_node("Where", [f"switch:{node.name}", f"{x}:rounded", x], [f"{node.name}:input"]))
            node.input[0] = f"{node.name}:input"
        nodes.append(node)
    _replace_nodes(model.graph, nodes)
    _declare_switches(model.graph, names)
    return list(names)


def _replace_nodes(graph: "onnx.GraphProto", nodes: "Sequence[onnx.NodeProto]") -> None:
    copies = [copy_of(node) for node in nodes]  # because the list that owns the nodes is emptied
    del graph.node[:]
    graph.node.extend(copies)


def copy_of(node: "onnx.NodeProto") -> "onnx.NodeProto":
    """Return a copy that no graph owns."""
    copy = type(node)()
    copy.CopyFrom(node)
    return copy


def _declare_switches(graph: "onnx.GraphProto", names: Collection[str]) -> None:
    import onnx

    graph.input.extend(
        onnx.helper.make_tensor_value_info(f"switch:{name}", onnx.TensorProto.BOOL, []) for name in names
    )
