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
from optkit.artifact.tensors import Feed
from optkit.choose.int8.mixed_precision_graph import (
    add_dynamic_switches,
    add_static_switches,
    copy_of,
    make_overridable,
    rounded,
    scales_of,
)
from optkit.runners import Runner
from optkit.stages.quantizing import weight_of

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
        """Remember what to build the model with switches from.

        Args:
            source: gives the inputs and outputs.
            prepared: the float model as the quantizer took it; its folder takes another file.
            quantized: the same model with all of `nodes` quantized: statically in Q/DQ format, or dynamically.
            nodes: the names of the nodes that are quantized.
        """
        super().__init__(source)
        self._prepared, self._quantized, self._names = prepared, quantized, frozenset(nodes)
        self.layers: tuple[Layer, ...] = ()  # known once it is open
        self.kept: frozenset[str] = frozenset()

    @property
    def provider(self) -> str:
        """The provider of the session."""
        return "CPUExecutionProvider"

    def _load(self) -> None:
        import onnxruntime

        model, quantized = onnx_file.load(self._prepared), onnx_file.load(self._quantized)
        # Copies, since switches change what the nodes of the graph read and write.
        self._nodes = [copy_of(node) for node in model.graph.node if node.name in self._names]
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self.layers = tuple(_layer(node, tensors) for node in self._nodes if node.op_type not in _PASSIVE)
        scales = scales_of(quantized)
        self._weights = {
            weight: rounded(node, tensors[weight], *scales[weight])
            for node in self._nodes
            if (weight := weight_of(node)) in scales
        }
        dynamic = any(node.op_type == "DynamicQuantizeLinear" for node in quantized.graph.node)
        self._switches = add_dynamic_switches(model, self._nodes) if dynamic else add_static_switches(model, quantized)
        self._on: Callable[[], Collection[str]] = self._layers_on if dynamic else self._activations_on
        make_overridable(model.graph, [tensors[name] for name in self._weights])
        path = self._prepared.with_name("switches.onnx")
        onnx_file.save(model, path)
        self._output_names = [spec.name for spec in self.artifact.outputs]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.enable_profiling = True
        options.profile_file_prefix = str(path.with_suffix(".profile"))
        # A fusion must neither see through a switch nor take Q/DQ pairs for an integer kernel.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

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


def _layer(node: "onnx.NodeProto", tensors: "Mapping[str, onnx.TensorProto]") -> Layer:
    weight = weight_of(node)
    return Layer(node.name, node.op_type, weight, 4 * int(np.prod(tensors[weight].dims)) if weight else 0)
