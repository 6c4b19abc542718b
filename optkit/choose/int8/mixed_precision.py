"""A float model whose layers can be switched to INT8 arithmetic between two runs, without a new model for each choice of layers.

A switch decides whether an activation passes through QuantizeLinear and DequantizeLinear. The weights can be overridden with their
quantized values, so that each weight is quantized once. The outputs equal those of ONNX Runtime's integer kernels, except for the
rounding of sums.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from optkit import onnx_file
from optkit.artifact import Artifact
from optkit.artifact.tensors import Feed, check_feed
from optkit.choose.int8.mixed_precision_graph import (
    add_dynamic_switches,
    add_static_switches,
    copy_of,
    make_overridable,
    rounded,
    scales_of,
)
from optkit.errors import RunnerError, first_line
from optkit.runners.base import shapes_text
from optkit.stages.quantizing import weight_of
from optkit.untrusted.documents import read_json

if TYPE_CHECKING:
    import onnx

# These compute with the integers of their input, so they have no effect of their own: they follow the node before them.
_PASSIVE = frozenset({"Relu", "Clip", "MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True)
class Layer:
    """A node that can run in INT8 or in float."""

    name: str
    op: str
    weight: str | None  # the name of its weight, where it has one
    size_bytes: int  # of the weight in FP32


class MixedPrecisionModel:
    """Runs the float model with every layer in INT8 except those in `kept`.

    Open it in `with`; assign `kept` between runs.
    """

    def __init__(self, source: Artifact, prepared: Path, quantized: Path, nodes: Sequence[str]) -> None:
        """Store the two models to build it from.

        Args:
            source: has the inputs and outputs.
            prepared: the float model that the quantizer used; a file is written beside it.
            quantized: the same model with all of `nodes` quantized: statically in Q/DQ format, or dynamically.
            nodes: the names of the quantized nodes.
        """
        self._source, self._prepared, self._quantized, self._names = source, prepared, quantized, frozenset(nodes)
        self.layers: tuple[Layer, ...] = ()  # known once it is open
        self.kept: frozenset[str] = frozenset()

    def __enter__(self) -> Self:
        import onnxruntime

        model, quantized = onnx_file.load(self._prepared), onnx_file.load(self._quantized)
        # Copies, because switches change the inputs and outputs of the nodes in the graph.
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
        path = self._prepared.with_name("mixed_precision.onnx")
        onnx_file.save(model, path)
        self._output_names = [spec.name for spec in self._source.outputs]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.enable_profiling = True
        options.profile_file_prefix = str(path.with_suffix(".profile"))
        # A fusion must neither bypass a switch nor replace Q/DQ pairs by an integer kernel.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return self

    def __exit__(self, *_: object) -> None:
        del self._session

    def infer(self, feed: Feed) -> dict[str, np.ndarray]:
        """Run one inference with the layers of `kept` in float.

        Raises:
            FeedError: a name, dtype or shape does not fit.
            RunnerError: ONNX Runtime fails on this feed.
        """
        check_feed(feed, self._source.inputs)
        on = set(self._on())
        switches = {f"switch:{name}": np.array(name in on) for name in self._switches}
        weights = {
            layer.weight: self._weights[layer.weight]
            for layer in self.layers
            if layer.name not in self.kept and layer.weight in self._weights
        }
        try:
            found = self._session.run(self._output_names, {**feed, **switches, **weights})
        except Exception as e:  # onnxruntime's exceptions share no base but Exception
            raise RunnerError(f"{self._source.path.name}: failed on {shapes_text(feed)}: {first_line(e)}") from e
        return dict(zip(self._output_names, found, strict=True))

    def time_shares(self, feed: Feed) -> dict[str, float]:
        """Return layer -> its share of the time of all layers in float (0 to 1), in one run.

        Call it once, and before every other method: runs are profiled until then.

        Raises:
            FeedError: a name, dtype or shape does not fit.
        """
        self.kept = frozenset(layer.name for layer in self.layers)
        self.infer(feed)
        events = read_json(Path(self._session.end_profiling()), RunnerError)
        took = {event["name"].removesuffix("_kernel_time"): event["dur"] for event in events if event["cat"] == "Node"}
        times = {layer.name: float(took.get(layer.name, 0.0)) for layer in self.layers}
        whole = sum(times.values()) or 1.0
        return {name: time / whole for name, time in times.items()}

    def _layers_on(self) -> Collection[str]:
        return [layer.name for layer in self.layers if layer.name not in self.kept]

    def _activations_on(self) -> Collection[str]:
        """Return the quantized activations: inputs and outputs of layers in INT8, and the outputs of passive nodes behind them."""
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
