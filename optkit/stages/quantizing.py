"""The common part of the two ONNX quantizing stages: the keys that select the nodes to quantize, and the selection."""

import difflib
import fnmatch
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from optkit import onnx_file
from optkit.artifact import Artifact, Format, Precision, environment
from optkit.errors import StageError
from optkit.stages.base import Stage

if TYPE_CHECKING:
    import onnx

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Gather")  # operators that have a weight
_WEIGHT_INPUT = {"Gather": 0}  # for all other operators the second input
_RECURRENT = ("LSTM", "GRU", "RNN")
_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul", *_RECURRENT)


class Quantizing(Stage):
    """A stage that makes an INT8 model of an FP32 one.

    `max_drop` and `min_cosine` leave layers in float until the model is accurate enough. The choice of these layers needs measurements,
    so `choose` makes it; the stage itself refuses these keys.
    """

    accepts: ClassVar[frozenset[Format]] = frozenset({Format.ONNX})
    produces: ClassVar[Format] = Format.ONNX
    filename: ClassVar[str] = "model.onnx"

    op_types: tuple[str, ...] = ()  # operators to quantize; empty: the operators that gain from it
    exclude: tuple[str, ...] = ()  # names of nodes that stay in float, as patterns: /encoder/layer.0/*
    exclude_ops: tuple[str, ...] = ()  # operators that stay in float
    keep_first_last: bool = False  # leave the first and the last layer with weights in float
    per_channel: bool = True  # one scale per channel of a weight
    weight_type: Literal["int8", "uint8"] = "int8"
    # 7-bit weights, for processors that add products in 16 bits; None: where the processor is an x86 without VNNI
    reduce_range: bool | None = None
    # SmoothQuant's alpha, 0 for none; None: where a transformer is measured to gain from it
    smooth: float | None = Field(default=None, ge=0, le=1)
    max_drop: float | None = Field(default=None, ge=0)  # of accuracy, in its own unit; needs an evaluation function
    min_cosine: float | None = Field(default=None, ge=-1, le=1)  # of every output to the float one, on real samples

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if self.max_drop is not None and self.min_cosine is not None:
            raise ValueError("max_drop and min_cosine are mutually exclusive, and both are set. Leave one out")
        return self

    @property
    def limited(self) -> bool:
        """Whether an accuracy limit is set; the artifact then also depends on the evaluation function and the samples."""
        return self.max_drop is not None or self.min_cosine is not None

    def hardware(self) -> dict[str, str]:
        """Return the processor: types are chosen for it, and by measurement on it."""
        return environment.hardware()

    def faults(self, calibration: str | None, evaluation: str | None) -> Iterator[str]:
        """Yield what the step needs and a recipe does not give, as a function that measures what its limit is about."""
        yield from super().faults(calibration, evaluation)
        if self.max_drop is not None and not evaluation:
            yield "max_drop: nothing measures accuracy; name a function as data.evaluation: file.py:evaluate"
        if self.min_cosine is not None and not calibration:
            yield "min_cosine: there are no samples to judge on; name some as data.calibration: file.py:function"

    def check_source(self, source: Artifact) -> None:
        """Refuse a model that is not in FP32, and keys that need measurements.

        Raises:
            StageError: the model is not in FP32, or `max_drop` or `min_cosine` is set.
        """
        if source.precision is not Precision.FP32:
            raise StageError(
                f"{source.path.name} is {source.precision}; expected an FP32 model. Quantize before casting."
            )
        if onnx_file.facts(source.path).precision is Precision.INT8:
            raise StageError(
                f"{source.path.name} has Q/DQ nodes already, as FakeQuantize modules write them; expected a model in float. Remove "
                f"the fake quantization before the export (torch.ao.quantization.disable_fake_quant), or use the file as it is."
            )
        if self.limited:
            raise StageError("max_drop and min_cosine need measurements, and a single stage measures nothing")

    def select(self, graph: "onnx.GraphProto", op_types: Sequence[str]) -> "list[onnx.NodeProto]":
        """Return the nodes to quantize, in the order of the graph.

        Args:
            graph: prepared, so that every node has a name.
            op_types: the operators to quantize where the stage's own `op_types` is empty.

        Raises:
            StageError: an exclusion or an operator matches nothing, or no node is left.
        """
        self._check_names(graph)
        weights = {tensor.name for tensor in graph.initializer}
        wanted = [
            node
            for node in graph.node
            if node.op_type in (self.op_types or op_types)
            and (node.op_type not in WEIGHTED or weight_of(node) in weights)
        ]
        unsupported = {node.name: why for node in wanted if (why := self._unsupported(node, graph))}
        wanted = [node for node in wanted if node.name not in unsupported]
        layers = [node.name for node in wanted if node.op_type in WEIGHTED and node.op_type != "Gather"]
        ends = {layers[0], layers[-1]} if self.keep_first_last and layers else set()
        selected = [node for node in wanted if not self._excluded(node.name, node.op_type) and node.name not in ends]
        if not selected:
            known = ", ".join((self.op_types or tuple(op_types))[:4])
            why = "the model has them, but all are excluded" if wanted else "the model has none that can be quantized"
            if unsupported:
                why += f" ({'; '.join(f'{name}: {reason}' for name, reason in list(unsupported.items())[:4])})"
            raise StageError(f"nothing would become INT8: the operators to quantize are {known}, and {why}")
        return selected

    def float_ops(self, path: Path) -> str:
        """Return the heavy operators that stay in float in a file of this stage, with the reason, as `3 Conv (excluded)`; or nothing."""
        graph = onnx_file.load(path, weights=False).graph
        produced_by = {name: node.op_type for node in graph.node for name in node.output}
        weights = {tensor.name for tensor in graph.initializer}
        counts: Counter[str] = Counter()
        for node in onnx_file.nodes(graph):
            if node.op_type in _HEAVY and produced_by.get(node.input[1]) != "DequantizeLinear":
                two = node.op_type == "MatMul" and not weights.intersection(node.input)
                name, op = _as_it_was(node)
                what = f"{op} of two activations" if two else op
                why = self._unsupported(node, graph) if weight_of(node) in weights else None
                counts[f"{what} ({why or self._why_float(name, op, two)})"] += 1
        return ", ".join(f"{n} {what}" for what, n in counts.items())

    def _unsupported(self, node: "onnx.NodeProto", graph: "onnx.GraphProto") -> str | None:
        """Return why ONNX Runtime's quantizer or its INT8 kernels fail on a node, or give wrong outputs; None where they do not."""
        values = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Gemm":
            other = [name for name in ("alpha", "beta") if name in values and values[name].f != 1]
            return f"its {' and '.join(other)} is not 1, which INT8 kernels ignore" if other else None
        if node.op_type == "MatMul":
            weight = next((tensor for tensor in graph.initializer if tensor.name == weight_of(node)), None)
            rank = len(weight.dims) if weight is not None else 2
            return f"its weight has {rank} dimensions" if rank != 2 else None
        return None

    def _why_float(self, name: str, op: str, two: bool) -> str:
        if self._excluded(name, op):
            return "excluded"
        if self.op_types and op not in self.op_types:
            return "not in op_types"
        if two:
            return "both inputs are activations; the attention mask contains -inf, so there is no quantization range"
        if op in _RECURRENT:
            return "only quantize-torch quantizes recurrent layers"
        if self.keep_first_last:
            return "the first or the last layer, or without a constant weight"
        return "its weight is not a constant, or ONNX Runtime's quantizer does not support it"

    def _excluded(self, name: str, op: str) -> bool:
        return op in self.exclude_ops or any(matches(name, pattern) for pattern in self.exclude)

    def _check_names(self, graph: "onnx.GraphProto") -> None:
        """Refuse a pattern or an operator that the graph does not have: a misspelt one would silently have no effect."""
        names, ops = [node.name for node in graph.node], {node.op_type for node in graph.node}
        for pattern in self.exclude:
            if not any(matches(name, pattern) for name in names):
                near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3)
                known = near or [node.name for node in graph.node if node.op_type in WEIGHTED][:3] or names[:3]
                raise StageError(f"exclude: no node matches {pattern!r}; similar names are {', '.join(known)}")
        for key, given in (("exclude_ops", self.exclude_ops), ("op_types", self.op_types)):
            for op in given:
                if op not in ops:
                    known = difflib.get_close_matches(op, ops, n=3, cutoff=0.3) or sorted(ops)
                    raise StageError(f"{key}: the model has no {op} node; it has {', '.join(known)}")


def grouped_transposed(nodes: "Sequence[onnx.NodeProto]") -> "list[onnx.NodeProto]":
    """Return the transposed convolutions with a bias and groups: the quantizer's scales per channel do not fit their bias."""
    return [
        node
        for node in nodes
        if node.op_type == "ConvTranspose"
        and len(node.input) > 2
        and any(a.name == "group" and a.i > 1 for a in node.attribute)
    ]


def matches(name: str, pattern: str) -> bool:
    """Whether a node's name matches a pattern; an exact name also matches, even with brackets."""
    return name == pattern or fnmatch.fnmatchcase(name, pattern)


def weight_of(node: "onnx.NodeProto") -> str | None:
    """Return the name of the weight input of a node; None where the operator has no weight."""
    place = _WEIGHT_INPUT.get(node.op_type, 1)
    return node.input[place] if node.op_type in WEIGHTED and len(node.input) > place else None


def _as_it_was(node: "onnx.NodeProto") -> tuple[str, str]:
    """Return the original name and operator of a node: ONNX Runtime's dynamic quantizer turns Gemm into MatMul."""
    gemm = node.op_type == "MatMul" and node.name.endswith("_MatMul")
    return (node.name.removesuffix("_MatMul"), "Gemm") if gemm else (node.name, node.op_type)


def has_attention(graph: "onnx.GraphProto") -> bool:
    """Whether a MatMul multiplies two activations, as in a transformer."""
    weights = {tensor.name for tensor in graph.initializer}
    return any(node.op_type == "MatMul" and not weights.intersection(node.input) for node in graph.node)
