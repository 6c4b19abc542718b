"""The ONNX file parsed by TensorRT, and compared with the declared inputs and outputs."""

from __future__ import annotations

from typing import Any, Sequence

from .log import first_error
from .protocol import FaultError, Json
from .runtimes import title
from .tensors import describe


def parse(trt: Any, builder: Any, logger: Any, job: Json, log: list[str]) -> tuple[Any, Any]:
    """Read the ONNX file; return the network and the parser, which must live as long as the network.

    Raises:
        FaultError: TensorRT does not support some operators (the message has all of them), or the file is empty.
    """
    creation = trt.NetworkDefinitionCreationFlag
    flags = 0
    for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):
        if hasattr(creation, name):
            flags |= 1 << int(getattr(creation, name))
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    # By its path, so that TensorRT finds external data beside it.
    read = parser.parse_from_file(job["onnx"])
    nodes = _unsupported_nodes(trt, parser, job["ops"]) if not read or parser.num_errors else []
    if nodes:
        raise FaultError(f"{title(trt)} does not support {len(nodes)} of its nodes", nodes)
    if not read:
        raise FaultError(f"TensorRT cannot read the model: {first_error(log)}")
    if not network.num_outputs:  # the parser returns True for a file of zeros
        raise FaultError("TensorRT finds no output in the model, so the file is damaged or empty. Export it again.")
    _check_tensors(network, job)
    return network, parser


def describe_inputs(network: Any) -> list[Json]:
    """Return the inputs of a network."""
    return [_describe(network.get_input(i)) for i in range(network.num_inputs)]


def describe_outputs(network: Any) -> list[Json]:
    """Return the outputs of a network."""
    return [_describe(network.get_output(i)) for i in range(network.num_outputs)]


def _describe(tensor: Any) -> Json:
    return describe(tensor.name, tensor.dtype, tensor.shape)


def _unsupported_nodes(trt: Any, parser: Any, ops: Sequence[str]) -> list[Json]:
    """Return the parser's report on each unsupported node.

    An older parser stops at the first node and does not report its operator, so every operator of the model is tested.
    """
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    # Convert to text at once, because the parser owns the errors. 8.6 has only the number of the node; -1 means the file.
    found = [
        {
            "node": error.node(),
            "name": str(error.node_name()) if hasattr(error, "node_name") else None,
            "op": str(error.node_operator()) if hasattr(error, "node_operator") else None,
            "why": str(error.desc()),
        }
        for error in errors
        if error.node() >= 0
    ]
    if found and not hasattr(trt.ParserError, "node_operator"):
        missing = [op for op in ops if not parser.supports_operator(op)]
        found += [{"node": None, "name": None, "op": op, "why": "no such operator"} for op in missing]
    return found


def _check_tensors(network: Any, job: Json) -> None:
    """Compare TensorRT's inputs and outputs with the declared ones.

    Raises:
        FaultError: names differ, a rank or a dtype differs, or the values of an input are a shape.
    """
    inputs = {t.name: t for t in (network.get_input(i) for i in range(network.num_inputs))}
    outputs = [network.get_output(i).name for i in range(network.num_outputs)]
    declared = {spec["name"]: spec for spec in job["inputs"]}
    if set(inputs) != set(declared):
        raise FaultError("TensorRT sees the inputs {}; declared are {}".format(", ".join(inputs), ", ".join(declared)))
    if set(outputs) != set(job["outputs"]):
        raise FaultError(
            "TensorRT sees the outputs {}; declared are {}".format(", ".join(outputs), ", ".join(job["outputs"]))
        )
    for name, spec in declared.items():
        found = _describe(inputs[name])
        # 8.6 has no INT64 and uses INT32 instead.
        same = found["dtype"] == spec["dtype"] or (found["dtype"], spec["dtype"]) == ("int32", "int64")
        if not same or len(found["shape"]) != len(spec["shape"]):
            raise FaultError("input {!r}: TensorRT sees {}{}; declared is {}{}".format(
                name, found["dtype"], found["shape"], spec["dtype"], spec["shape"]))  # fmt: skip
        if inputs[name].is_shape_tensor:
            raise FaultError(
                f"input {name!r}: its values are a shape; expected shapes to depend only on the shapes of inputs"
            )
