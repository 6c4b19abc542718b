"""Accurate forms in the place of what exporters write for some functions, which is right only for small values.

log(sigmoid(x))      is -softplus(-x): ONNX Runtime's Sigmoid is 0 below -18, where log(sigmoid(x)) is x
logaddexp(a, b)      is max(a, b) + softplus(-|a - b|): exp() overflows above 88
logaddexp2(a, b)     likewise, with powers of 2
log1p(x), expm1(x)   lose every digit of a small x when 1 is added to it or subtracted

The first form replaces every log of a sigmoid. The others replace only what PyTorch's own function became, which the dynamo exporter
notes in the file: an expression that the user wrote has the same faults in PyTorch, and must give the same outputs.
"""

import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from optkit import onnx_file

if TYPE_CHECKING:
    import onnx

_FLOAT = 1  # of onnx.TensorProto.DataType
_ORIGIN = "pkg.torch.onnx.fx_node"  # the metadata in which the dynamo exporter names the function of a node

# A function's nodes in order: the operator, its inputs and its output, as names inside the form.
_Nodes = list[tuple[str, list[str], str]]


def use_stable_forms(path: Path, operators: Collection[str]) -> list[str]:
    """Rewrite the file with stable forms where it has any of these functions, and return a note for each kind.

    Args:
        path: the ONNX file; its external data stays as it is.
        operators: those of its graph, so that most files are not read again.
    """
    if not {"Log", "Exp"} & set(operators):
        return []
    import onnx

    model = onnx_file.load(path, weights=False)
    notes: dict[str, int] = {}
    while found := next(
        _found(model.graph), None
    ):  # one at a time, because a replacement renews the nodes of its graph
        kind, graph, node, inner, made = found
        _replace(graph, node, inner, made)
        notes[kind] = notes.get(kind, 0) + 1
    if notes:
        onnx.save_model(model, str(path))
    return [
        f"{count} x {kind} written in a form that is accurate for far-reaching values" for kind, count in notes.items()
    ]


def _found(
    graph: "onnx.GraphProto",
) -> "Iterator[tuple[str, onnx.GraphProto, onnx.NodeProto, list[onnx.NodeProto], list[onnx.NodeProto]]]":
    """Yield each function: its kind, its graph, its last node, its other nodes, and the nodes to write."""
    made_by = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        inputs = [made_by.get(name) for name in node.input]
        first = inputs[0] if inputs else None
        if node.op_type == "Log" and first is not None and first.op_type == "Sigmoid":
            yield "log(sigmoid(x))", graph, node, [first], _log_sigmoid(graph, node, first.input[0])
        elif node.op_type == "Log" and first is not None and first.op_type == "Add":
            yield from _log_of_sum(graph, node, first, made_by)
        elif node.op_type == "Sub" and first is not None and first.op_type == "Exp" and _is_from(node, "expm1"):
            yield "expm1(x)", graph, node, [], _expm1(graph, node, first.input[0], first.output[0])
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _found(attribute.g)


def _log_of_sum(
    graph: "onnx.GraphProto", node: "onnx.NodeProto", total: "onnx.NodeProto", made_by: "dict[str, onnx.NodeProto]"
) -> "Iterator[tuple[str, onnx.GraphProto, onnx.NodeProto, list[onnx.NodeProto], list[onnx.NodeProto]]]":
    terms = [made_by.get(name) for name in total.input]
    if _is_from(node, "logaddexp") and all(term is not None and term.op_type == "Exp" for term in terms):
        a, b = (term.input[0] for term in terms if term is not None)
        yield "logaddexp(a, b)", graph, node, [total, *filter(None, terms)], _log_add_exp(graph, node, a, b, 1.0)
    elif _is_from(node, "logaddexp2") and all(term is not None and term.op_type == "Pow" for term in terms):
        a, b = (term.input[1] for term in terms if term is not None)
        yield (
            "logaddexp2(a, b)",
            graph,
            node,
            [total, *filter(None, terms)],
            _log_add_exp(graph, node, a, b, math.log(2)),
        )
    elif _is_from(node, "log1p"):
        # The 1 is a constant, and the other term is x; where both are computed, PyTorch puts x first.
        yield "log1p(x)", graph, node, [], _log1p(graph, node, total.input[0], total.output[0])


def _is_from(node: "onnx.NodeProto", function: str) -> bool:
    """Whether the exporter wrote a node for this function of PyTorch."""
    return any(f"aten.{function}.default]" in p.value for p in node.metadata_props if p.key == _ORIGIN)


def _log_sigmoid(graph: "onnx.GraphProto", node: "onnx.NodeProto", x: str) -> "list[onnx.NodeProto]":
    return _nodes(graph, node, {}, [("Neg", [x], "n"), ("Softplus", ["n"], "s"), ("Neg", ["s"], "")])


def _log_add_exp(
    graph: "onnx.GraphProto", node: "onnx.NodeProto", a: str, b: str, scale: float
) -> "list[onnx.NodeProto]":
    """The natural logarithm of the sum; for equal values, infinite ones too, the difference is 0."""
    form: _Nodes = [
        ("Max", [a, b], "m"), ("Sub", [a, b], "d"), ("Abs", ["d"], "w"), ("Equal", [a, b], "e"), ("Where", ["e", "zero", "w"], "v"),
        ("Mul", ["v", "minus"], "n"), ("Softplus", ["n"], "s"), ("Mul", ["m", "scale"], "t"), ("Add", ["t", "s"], ""),
    ]  # fmt: skip
    return _nodes(graph, node, {"zero": 0.0, "minus": -scale, "scale": scale}, form)


def _log1p(graph: "onnx.GraphProto", node: "onnx.NodeProto", x: str, total: str) -> "list[onnx.NodeProto]":
    """X * log(w) / (w - 1) with w = 1 + x, for small x: the rounding of w cancels out (Goldberg 1991, theorem 4)."""
    form: _Nodes = [
        ("Log", [total], "l"), ("Sub", [total, "one"], "r"), ("Equal", ["r", "zero"], "z"), ("Where", ["z", "one", "r"], "q"),
        ("Div", [x, "q"], "k"), ("Mul", ["l", "k"], "p"), ("Where", ["z", x, "p"], "f"),
        ("Abs", [x], "a"), ("Less", ["a", "half"], "c"), ("Where", ["c", "f", "l"], ""),
    ]  # fmt: skip
    return _nodes(graph, node, {"one": 1.0, "zero": 0.0, "half": 0.5}, form)


def _expm1(graph: "onnx.GraphProto", node: "onnx.NodeProto", x: str, exp: str) -> "list[onnx.NodeProto]":
    """exp(x) - 1 = tanh(x / 2) * (exp(x) + 1), which subtracts nothing."""
    form: _Nodes = [
        ("Mul", [x, "half"], "h"), ("Tanh", ["h"], "t"), ("Add", [exp, "one"], "u"), ("Mul", ["t", "u"], ""),
    ]  # fmt: skip
    return _nodes(graph, node, {"half": 0.5, "one": 1.0}, form)


def _nodes(
    graph: "onnx.GraphProto", node: "onnx.NodeProto", constants: dict[str, float], form: _Nodes
) -> "list[onnx.NodeProto]":
    """Return the nodes of a form, with the metadata of the node that they replace.

    Names that the form does not define are names of the graph. An output without a name is the output of the replaced node.
    """
    from onnx import helper

    base = node.output[0]
    own = {name: f"{base}_{name}" for name in (*constants, *(output for _, _, output in form if output))}
    dtype = _type_of(graph, base)
    made = [
        helper.make_node(
            "Constant", [], [own[name]], own[name], value=helper.make_tensor(own[name], dtype, [], [value])
        )
        for name, value in constants.items()
    ]
    for op, inputs, output in form:
        out = own[output] if output else base
        made.append(
            helper.make_node(op, [own.get(i, i) for i in inputs], [out], f"{node.name or base}_{output or 'out'}")
        )
    for one in made:
        one.metadata_props.extend(p for p in node.metadata_props if p.key != _ORIGIN)
    return made


def _type_of(graph: "onnx.GraphProto", name: str) -> int:
    """Return the type of a float value, by the exporter's notes in the file."""
    known: dict[str, int] = {
        value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)
    }
    return known.get(name, _FLOAT)


def _replace(
    graph: "onnx.GraphProto", node: "onnx.NodeProto", inner: "list[onnx.NodeProto]", made: "list[onnx.NodeProto]"
) -> None:
    """Put the nodes of a form in the place of a node, and remove the inner nodes that nothing else reads."""
    kept = [type(one).FromString(one.SerializeToString()) for one in graph.node]
    place = next(i for i, other in enumerate(kept) if other.output == node.output)
    kept[place : place + 1] = made
    for old in inner:
        read = {name for other in kept for name in other.input} | {value.name for value in graph.output}
        if old.output[0] not in read:
            kept = [other for other in kept if other.output != old.output]
    del graph.node[:]
    graph.node.extend(kept)
