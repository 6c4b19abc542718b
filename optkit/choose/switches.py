"""A float model whose layers can be switched to INT8 arithmetic between two runs, without building a model for each choice of layers.

Activations pass through QuantizeLinear and DequantizeLinear behind a switch, and the weights can be overridden with their quantized
values, so that each weight is quantized once. What comes out is what ONNX Runtime's integer kernels give, but for the rounding of sums.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optkit import onnx_file
from optkit.artifact import Artifact
from optkit.runners import Runner
from optkit.stages.quantizing import WEIGHTED, weight_of
from optkit.tensors import Feed

if TYPE_CHECKING:
    import onnx

# They compute with the integers that they are given, so that their own effect is none: they follow what is before them.
_PASSIVE = frozenset({"Relu", "Clip", "MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True)
class Layer:
    """A node that can be in INT8 or in float."""

    name: str
    op: str
    weight: str | None  # the name of its weight, where it has one
    size_bytes: int  # of the weight in FP32


class Switchboard(Runner):
    """Runs the float model with every layer in INT8 but those in `kept`.

    Open it in `with`; assign `kept` between runs.
    """

    def __init__(self, source: Artifact, prepared: Path, quantized: Path, nodes: Sequence[str]) -> None:
        """Build the model with switches.

        Args:
            source: gives the inputs and outputs.
            prepared: the float model as the quantizer took it; its folder takes another file.
            quantized: the same model with all of `nodes` quantized: statically in Q/DQ format, or dynamically.
            nodes: the names of the nodes that are quantized.
        """
        super().__init__(source)
        self._float, self._quantized = onnx_file.load(prepared), onnx_file.load(quantized)
        wanted = set(nodes)
        # Copies, since switches change what the nodes of the graph read and write.
        self._nodes = [_copy(node) for node in self._float.graph.node if node.name in wanted]
        self._path = prepared.with_name("switches.onnx")
        self._tensors = {tensor.name: tensor for tensor in self._float.graph.initializer}
        self.layers = tuple(self._layer(node) for node in self._nodes if node.op_type not in _PASSIVE)
        self.kept: frozenset[str] = frozenset()
        self._weights: dict[str, np.ndarray] = {}

    @property
    def provider(self) -> str:
        """The provider of the session."""
        return "CPUExecutionProvider"

    def _layer(self, node: "onnx.NodeProto") -> Layer:
        weight = weight_of(node)
        size = 4 * int(np.prod(self._tensors[weight].dims)) if weight else 0
        return Layer(node.name, node.op_type, weight, size)

    def _load(self) -> None:
        import onnxruntime

        scales = _scales(self._quantized)
        self._weights = {
            layer.weight: _rounded(node, self._tensors[layer.weight], *scales[layer.weight])
            for layer in self.layers
            for node in self._nodes
            if node.name == layer.name and layer.weight in scales
        }
        dynamic = any(node.op_type == "DynamicQuantizeLinear" for node in self._quantized.graph.node)
        self._switches = (
            _add_dynamic(self._float, self._nodes) if dynamic else _add_static(self._float, self._quantized)
        )
        self._on: Callable[[], Collection[str]] = self._layers_on if dynamic else self._activations_on
        self._make_overridable()
        onnx_file.save(self._float, self._path)
        self._output_names = [spec.name for spec in self.artifact.outputs]
        del self._quantized
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.enable_profiling = True
        options.profile_file_prefix = str(self._path.with_suffix(".profile"))
        # A fusion must neither see through a switch nor take Q/DQ pairs for an integer kernel.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session: Any = onnxruntime.InferenceSession(self._path, options, providers=["CPUExecutionProvider"])

    def _free(self) -> None:
        del self._session

    def _infer(self, feed: Feed) -> dict[str, np.ndarray]:
        on = set(self._on())
        switches = {f"switch:{name}": np.array(name in on) for name in self._switches}
        weights = {
            layer.weight: self._weights[layer.weight]
            for layer in self.layers
            if layer.name not in self.kept and layer.weight in self._weights
        }
        found = self._session.run(self._output_names, {**feed, **switches, **weights})
        return dict(zip(self._output_names, found, strict=True))

    def _bind(self, feed: Feed) -> Callable[[], None]:
        raise NotImplementedError("what is switched is never timed")

    def time_shares(self, feed: Feed) -> dict[str, float]:
        """Return layer -> its share of the time of all layers in float (0 to 1), in one run.

        To be asked once, and before all else: runs are profiled until then.

        Raises:
            FeedError: a name, dtype or shape does not fit.
        """
        self.kept = frozenset(layer.name for layer in self.layers)
        self.infer(feed)
        events = json.loads(Path(self._session.end_profiling()).read_text())
        took = {event["name"].removesuffix("_kernel_time"): event["dur"] for event in events if event["cat"] == "Node"}
        times = {layer.name: float(took.get(layer.name, 0.0)) for layer in self.layers}
        whole = sum(times.values()) or 1.0
        return {name: time / whole for name, time in times.items()}

    def _layers_on(self) -> Collection[str]:
        return [layer.name for layer in self.layers if layer.name not in self.kept]

    def _activations_on(self) -> Collection[str]:
        """Return the activations that are quantized: those that a layer in INT8 reads or writes, and what passive nodes make of them."""
        on: set[str] = set()
        for node in self._nodes:
            if node.op_type in _PASSIVE:
                on.update(node.output if on.intersection(node.input) else ())
            elif node.name not in self.kept:
                on.update((*node.input, *node.output))
        return on

    def _make_overridable(self) -> None:
        import onnx

        graph = self._float.graph
        known = {value.name for value in graph.input}
        for name in self._weights:
            if name not in known:
                dims = self._tensors[name].dims
                graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims))


def _scales(quantized: "onnx.ModelProto") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return tensor name -> scale and zero point, by the names that ONNX Runtime's quantizer gives them."""
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in quantized.graph.initializer}
    return {
        name.removesuffix("_scale"): (numpy_helper.to_array(tensor), numpy_helper.to_array(tensors[zero]))
        for name, tensor in tensors.items()
        if name.endswith("_scale") and (zero := f"{name.removesuffix('_scale')}_zero_point") in tensors
    }


def _rounded(node: "onnx.NodeProto", weight: "onnx.TensorProto", scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """Return a weight as its integers stand for it, in float32."""
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


def _add_static(model: "onnx.ModelProto", quantized: "onnx.ModelProto") -> list[str]:
    """Put a switch behind every activation that has a Q/DQ pair in the quantized model; return the names of these activations."""
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


def _add_dynamic(model: "onnx.ModelProto", selected: "Sequence[onnx.NodeProto]") -> list[str]:
    """Put a switch before the activation of every selected product; return the names of the layers."""
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
    copies = [_copy(node) for node in nodes]  # they belong to the list that is emptied
    del graph.node[:]
    graph.node.extend(copies)


def _copy(node: "onnx.NodeProto") -> "onnx.NodeProto":
    copy = type(node)()
    copy.CopyFrom(node)
    return copy


def _declare_switches(graph: "onnx.GraphProto", names: Collection[str] | Mapping[str, object]) -> None:
    import onnx

    graph.input.extend(
        onnx.helper.make_tensor_value_info(f"switch:{name}", onnx.TensorProto.BOOL, []) for name in names
    )
