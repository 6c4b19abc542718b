"""SmoothQuant: it moves the range of activations, channel by channel, into the weights of the next matrix product.

All channels of an activation share one scale. In a transformer a few channels have large values, which leaves coarse steps for all
others, while weights have one scale per output. `x @ W` is `(x / s) @ (s * W)` for any positive s by channel: G. Xiao et al.,
"SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", 2022, https://arxiv.org/abs/2211.10438.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from optkit import onnx_file
from optkit.artifact.tensors import Feed
from optkit.errors import StageError
from optkit.quantization.calibration.channels import PRODUCTS, channel_magnitudes

if TYPE_CHECKING:
    import onnx

SMOOTH = ":smooth"  # the suffix of added nodes and weights
_SMALLEST = 1e-3  # of the largest channel; limits the scale of a channel without data
_EQUAL = 1e-4  # the largest change by float rounding, relative to the norm of an output


class _Group(NamedTuple):
    """The matrix products that read one tensor, and therefore share its scales."""

    tensor: str
    nodes: "list[onnx.NodeProto]"


def smooth(prepared: Path, selected: Collection[str], feeds: Iterable[Feed], strength: float) -> Path:
    """Write a smoothed copy beside the model, check that both are equal in float, and return its path.

    Args:
        prepared: the model from `quantizing`.
        selected: names of the nodes that will be quantized.
        feeds: calibration data that can be read more than once.
        strength: the paper's alpha, 0 to 1: the part of the range that moves into the weights.

    Raises:
        StageError: no matrix product with weights is selected, the model cannot be run, or the copy gives other outputs.
        FeedError: the data does not fit the inputs, or an activation is not finite.
    """
    model = onnx_file.load(prepared)
    graph = model.graph
    groups = _groups(graph, selected)
    if not groups:
        raise StageError(
            "smooth: no matrix product with weights is to be quantized; SmoothQuant needs one. Leave smooth out"
        )
    others = {node.name for node in graph.node} - {node.name for group in groups for node in group.nodes}
    largest = channel_magnitudes(prepared, [group.tensor for group in groups], feeds, excluded=others)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for group in groups:
        if group.tensor in largest:
            _move(graph, group, _scales(group, weights, largest[group.tensor], strength), weights)
    _drop_unused(graph)
    path = prepared.with_name(f"smooth-{strength:g}.onnx")
    onnx_file.save(model, path, prepared.stat().st_size)
    _prove_equal(prepared, path, next(iter(feeds)))
    return path


def _groups(graph: "onnx.GraphProto", selected: Collection[str]) -> list[_Group]:
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        if (
            node.op_type in PRODUCTS
            and node.name in selected
            and node.input[1] in weights
            and not _is_set(node, "transA")
        ):
            found.setdefault(node.input[0], []).append(node)
    return [_Group(tensor, nodes) for tensor, nodes in found.items()]


def _is_set(node: "onnx.NodeProto", name: str) -> bool:
    return any(attribute.name == name and attribute.i for attribute in node.attribute)


def _scales(
    group: _Group, weights: "Mapping[str, onnx.TensorProto]", activations: np.ndarray, strength: float
) -> np.ndarray:
    """Return the scale s of each channel, (channels,): max|x| ** strength / max|W| ** (1 - strength), with geometric mean 1."""
    from onnx import numpy_helper

    rows = [np.abs(numpy_helper.to_array(weights[node.input[1]])).max(axis=_outputs(node)) for node in group.nodes]
    weight = np.max(rows, axis=0)  # (channels,)
    x, w = (np.maximum(m, max(_SMALLEST * float(m.max()), 1e-30)).astype(np.float64) for m in (activations, weight))
    scales = x**strength / w ** (1 - strength)
    centred: np.ndarray = (scales / np.exp(np.log(scales).mean())).astype(np.float32)
    return centred


def _outputs(node: "onnx.NodeProto") -> int:
    """Return the output axis of the weight."""
    return 0 if _is_set(node, "transB") else 1


def _move(
    graph: "onnx.GraphProto", group: _Group, scales: np.ndarray, weights: "Mapping[str, onnx.TensorProto]"
) -> None:
    """Divide the activation by the scales, if possible inside the LayerNormalization before it, and multiply the weights."""
    from onnx import numpy_helper

    if not _divide_before(graph, group, scales, weights):
        _divide(graph, group, scales)
    for node in group.nodes:
        weight = numpy_helper.to_array(weights[node.input[1]])
        moved = weight * (scales[:, None] if _outputs(node) == 1 else scales)
        _replace_weight(graph, node, 1, moved, f"{node.name}{SMOOTH}")


def _divide_before(
    graph: "onnx.GraphProto", group: _Group, scales: np.ndarray, weights: "Mapping[str, onnx.TensorProto]"
) -> bool:
    """Divide scale and bias of the LayerNormalization that writes the tensor; False where it cannot be done."""
    from onnx import numpy_helper

    before = next((node for node in graph.node if group.tensor in node.output), None)
    readers = [node for node in onnx_file.nodes(graph) if group.tensor in node.input]
    ours = {node.name for node in group.nodes}
    read_outside = group.tensor in {value.name for value in graph.output} or any(r.name not in ours for r in readers)
    if before is None or before.op_type != "LayerNormalization" or read_outside:
        return False
    places = [place for place in (1, 2) if len(before.input) > place and before.input[place]]
    if not all(before.input[place] in weights for place in places):
        return False
    for place in places:
        divided = numpy_helper.to_array(weights[before.input[place]]) / scales
        _replace_weight(graph, before, place, divided, f"{before.name}:{place}{SMOOTH}")
    return True


def _divide(graph: "onnx.GraphProto", group: _Group, scales: np.ndarray) -> None:
    """Insert a Mul before the matrix products."""
    from onnx import helper, numpy_helper

    name = f"{group.tensor}{SMOOTH}"
    graph.initializer.append(numpy_helper.from_array(1 / scales, f"{name}:scale"))
    first = next(i for i, node in enumerate(graph.node) if node.name == group.nodes[0].name)
    graph.node.insert(first, helper.make_node("Mul", [group.tensor, f"{name}:scale"], [name], name=name))
    known = next((v for v in (*graph.value_info, *graph.input) if v.name == group.tensor), None)
    if known is not None:
        value = graph.value_info.add()
        value.CopyFrom(known)
        value.name = name
    for node in group.nodes:
        node.input[0] = name


def _replace_weight(graph: "onnx.GraphProto", node: "onnx.NodeProto", place: int, value: np.ndarray, name: str) -> None:
    """Give a node its own weight, because other nodes may share the old one."""
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
    node.input[place] = name


def _drop_unused(graph: "onnx.GraphProto") -> None:
    read = {name for node in onnx_file.nodes(graph) for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _prove_equal(reference: Path, candidate: Path, feed: Feed) -> None:
    """Run both in float.

    Raises:
        StageError: an output differs by more than rounding.
    """
    right, found = (_outputs_of(path, feed) for path in (reference, candidate))
    for name, expected in right.items():
        difference = float(np.linalg.norm((found[name] - expected).ravel()))
        if not difference <= _EQUAL * float(np.linalg.norm(expected.ravel())):
            raise StageError(
                f"smooth: output {name!r} of the smoothed model differs from the float one by {difference:.3g}; expected equal "
                f"outputs. Turn SmoothQuant off: --smooth 0"
            )


def _outputs_of(path: Path, feed: Feed) -> dict[str, np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names: Sequence[str] = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feed)), strict=True))
