"""What the two quantizing stages have in common: the keys that say which nodes become INT8, and the nodes that they select."""

import difflib
import fnmatch
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from optkit import onnx_file
from optkit.artifact import Artifact, Format, Precision
from optkit.errors import StageError
from optkit.stages.base import Stage

if TYPE_CHECKING:
    import onnx

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Gather")  # operators that have a weight
_WEIGHT_INPUT = {"Gather": 0}  # of all others it is the second
_RECURRENT = ("LSTM", "GRU", "RNN")
_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul", *_RECURRENT)


class Quantizing(Stage):
    """A stage that makes an INT8 model of an FP32 one.

    `max_drop` and `min_cosine` ask for layers to be left in float until the model is accurate enough. Which layers needs measurements,
    so `choose` answers them, and the stage itself refuses them.
    """

    accepts: ClassVar[frozenset[Format]] = frozenset({Format.ONNX})
    produces: ClassVar[Format] = Format.ONNX
    filename: ClassVar[str] = "model.onnx"

    op_types: tuple[str, ...] = ()  # operators to quantize; none: those that gain from it
    exclude: tuple[str, ...] = ()  # names of nodes that stay in float, as patterns: /encoder/layer.0/*
    exclude_ops: tuple[str, ...] = ()  # operators that stay in float
    keep_first_last: bool = False  # leave the first and the last layer with weights in float
    per_channel: bool = True  # a scale for each channel of a weight
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
            raise ValueError(
                "max_drop and min_cosine are both given; a model is held against one of them. Leave one out"
            )
        return self

    @property
    def limited(self) -> bool:
        """Whether a limit on accuracy was given, so that what is made depends on what judges it."""
        return self.max_drop is not None or self.min_cosine is not None

    def faults(self, calibration: str | None, evaluation: str | None) -> Iterator[str]:
        """Yield what the step needs and a recipe does not give, as a function that measures what its limit is about."""
        yield from super().faults(calibration, evaluation)
        if self.max_drop is not None and not evaluation:
            yield "max_drop: nothing measures accuracy; name a function as data.evaluation: file.py:evaluate"
        if self.min_cosine is not None and not calibration:
            yield "min_cosine: there are no samples to judge on; name some as data.calibration: file.py:function"

    def check_source(self, source: Artifact) -> None:
        """Refuse what cannot be quantized, and keys that ask for measurements.

        Raises:
            StageError: the model is not in FP32, or `max_drop` or `min_cosine` was given.
        """
        if source.precision is not Precision.FP32:
            raise StageError(
                f"{source.path.name} is {source.precision}; expected an FP32 model. Quantize before casting."
            )
        if self.limited:
            raise StageError("max_drop and min_cosine need measurements, and a stage on its own makes none")

    def select(self, graph: "onnx.GraphProto", op_types: Sequence[str]) -> "list[onnx.NodeProto]":
        """Return the nodes to quantize, in the order of the graph.

        Args:
            graph: prepared, so that every node has a name.
            op_types: what to quantize where `op_types` is not given.

        Raises:
            StageError: an exclusion or an operator matches nothing, or nothing is left.
        """
        self._check_names(graph)
        weights = {tensor.name for tensor in graph.initializer}
        wanted = [
            node
            for node in graph.node
            if node.op_type in (self.op_types or op_types)
            and (node.op_type not in WEIGHTED or weight_of(node) in weights)
        ]
        layers = [node.name for node in wanted if node.op_type in WEIGHTED and node.op_type != "Gather"]
        ends = {layers[0], layers[-1]} if self.keep_first_last and layers else set()
        selected = [node for node in wanted if not self._excluded(node.name, node.op_type) and node.name not in ends]
        if not selected:
            known = ", ".join((self.op_types or tuple(op_types))[:4])
            why = "every one is excluded" if wanted else "the model has none that can be"
            raise StageError(f"nothing would become INT8: of the operators to quantize ({known}), {why}")
        return selected

    def float_ops(self, path: Path) -> str:
        """Return the heavy operators that a file made by this stage leaves in float, and why, as `3 Conv (excluded)`; or nothing."""
        graph = onnx_file.load(path, weights=False).graph
        produced_by = {name: node.op_type for node in graph.node for name in node.output}
        weights = {tensor.name for tensor in graph.initializer}
        counts: Counter[str] = Counter()
        for node in onnx_file.nodes(graph):
            if node.op_type in _HEAVY and produced_by.get(node.input[1]) != "DequantizeLinear":
                two = node.op_type == "MatMul" and not weights.intersection(node.input)
                name, op = _as_it_was(node)
                what = f"{op} of two activations" if two else op
                counts[f"{what} ({self._why_float(name, op, two)})"] += 1
        return ", ".join(f"{n} {what}" for what, n in counts.items())

    def _why_float(self, name: str, op: str, two: bool) -> str:
        if self._excluded(name, op):
            return "excluded"
        if self.op_types and op not in self.op_types:
            return "not among the operators to quantize"
        if two:
            return "it has no weight, and behind an attention mask no range"
        if op in _RECURRENT:
            return "recurrent layers become INT8 by quantize-torch alone"
        if self.keep_first_last:
            return "the first or the last layer, or without a constant weight"
        return "its weight is no constant, or ONNX Runtime's quantizer has no INT8 form of it"

    def _excluded(self, name: str, op: str) -> bool:
        return op in self.exclude_ops or any(matches(name, pattern) for pattern in self.exclude)

    def _check_names(self, graph: "onnx.GraphProto") -> None:
        """Refuse a pattern or an operator that the graph does not have; it would be misspelt, and change nothing in silence."""
        names, ops = [node.name for node in graph.node], {node.op_type for node in graph.node}
        for pattern in self.exclude:
            if not any(matches(name, pattern) for name in names):
                near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3)
                known = near or [node.name for node in graph.node if node.op_type in WEIGHTED][:3] or names[:3]
                raise StageError(f"exclude: no node is called {pattern!r}; near it are {', '.join(known)}")
        for key, given in (("exclude_ops", self.exclude_ops), ("op_types", self.op_types)):
            for op in given:
                if op not in ops:
                    known = difflib.get_close_matches(op, ops, n=3, cutoff=0.3) or sorted(ops)
                    raise StageError(f"{key}: the model has no {op} node; it has {', '.join(known)}")


def matches(name: str, pattern: str) -> bool:
    """Whether a node's name is meant by a pattern; a name itself is a pattern too, also with brackets in it."""
    return name == pattern or fnmatch.fnmatchcase(name, pattern)


def weight_of(node: "onnx.NodeProto") -> str | None:
    """Return the name of the input that is a weight where the operator has one, or None."""
    place = _WEIGHT_INPUT.get(node.op_type, 1)
    return node.input[place] if node.op_type in WEIGHTED and len(node.input) > place else None


def _as_it_was(node: "onnx.NodeProto") -> tuple[str, str]:
    """Return name and operator of a node before ONNX Runtime's dynamic quantizer made a MatMul of a Gemm."""
    gemm = node.op_type == "MatMul" and node.name.endswith("_MatMul")
    return (node.name.removesuffix("_MatMul"), "Gemm") if gemm else (node.name, node.op_type)


def has_attention(graph: "onnx.GraphProto") -> bool:
    """Whether two activations are multiplied with each other: the mark of a transformer."""
    weights = {tensor.name for tensor in graph.initializer}
    return any(node.op_type == "MatMul" and not weights.intersection(node.input) for node in graph.node)
