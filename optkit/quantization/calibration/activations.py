"""A session that returns the activations of a feed: the tensors whose ranges the quantizer needs."""

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from optkit import onnx_file
from optkit.artifact.tensors import Feed
from optkit.errors import StageError, first_line

if TYPE_CHECKING:
    import onnx

_CLIPPING = ("Relu", "Clip")


class Activations:
    """A session over a model whose wanted activations are outputs; open it with `with`.

    Attributes:
        names: the tensors that a call returns, in the order of the graph, so that the first faulty one is the origin of a fault.
        same_as: tensor -> the tensor whose range it shares. With asymmetric ranges, ONNX Runtime's quantizer gives the input of a Relu
            or Clip the range of its output, if nothing else reads the input. Such an input is no output of the session, so that the
            operators stay fused and the forward pass stays fast.
        has_batch: whether all inputs share a dynamic first dimension.
    """

    names: tuple[str, ...]
    same_as: dict[str, str]
    has_batch: bool

    def __init__(self, model: Path, ops: Sequence[str], *, excluded: Collection[str] = (), symmetric: bool) -> None:
        """Store the model and the selection.

        Args:
            model: an ONNX file with inferred shapes; a copy with more outputs is beside it while it is opened.
            ops: operators whose inputs and outputs are wanted.
            excluded: names of nodes that stay in float.
            symmetric: whether the ranges will be symmetric.
        """
        self._model = model
        self._ops = frozenset(ops)
        self._excluded = frozenset(excluded)
        self._symmetric = symmetric

    def __enter__(self) -> Self:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        augmented = self._model.with_name(f".augmented-{self._model.name}")  # beside its external data, if it has any
        self._augment(augmented)
        try:
            self._session = onnxruntime.InferenceSession(augmented, options, providers=["CPUExecutionProvider"])
        except Exception as e:  # onnxruntime's exceptions share no base but Exception
            raise StageError(f"the model cannot be run for calibration: {first_line(e)}") from e
        finally:
            augmented.unlink()
        return self

    def __exit__(self, *_: object) -> None:
        del self._session

    def __call__(self, feed: Feed) -> dict[str, np.ndarray]:
        """Return tensor name -> its values; tensors without elements are left out.

        Raises:
            StageError: the model cannot be run on the feed.
        """
        try:
            arrays = self._session.run(self._computed, dict(feed))
        except Exception as e:
            raise StageError(f"the model cannot be run on the calibration data: {first_line(e)}") from e
        found = dict(zip(self._computed, arrays, strict=True)) | {name: feed[name] for name in self._fed}
        return {name: found[name] for name in self.names if found[name].size}

    def _augment(self, path: Path) -> None:
        """Write the model with every wanted tensor as an output."""
        import onnx

        graph = onnx_file.load(self._model, weights=False).graph  # external data is beside it, and is read from there
        known = {v.name: v for v in (*graph.value_info, *graph.output, *graph.input)}
        weights = {tensor.name for tensor in graph.initializer}
        wanted = self._wanted(graph, known.keys() - weights)
        self.same_as = {} if self._symmetric else self._before_clipping(graph, wanted)
        self.names = tuple(name for name in wanted if name not in self.same_as)
        if not self.names:
            raise StageError("the model has no operator that can be quantized")
        inputs = [v for v in graph.input if v.name not in weights]
        fed = {v.name for v in inputs}
        self._fed = [name for name in self.names if name in fed]
        self._computed = [name for name in self.names if name not in fed]
        self.has_batch = _share_first_dim(inputs)
        already = {v.name for v in graph.output}
        # Protobuf merges concatenated messages, so the weights need not be written again.
        addition = onnx.ModelProto()
        addition.graph.output.extend(known[name] for name in self._computed if name not in already)
        shutil.copyfile(self._model, path)
        with path.open("ab") as file:
            file.write(addition.SerializeToString())

    def _wanted(self, graph: "onnx.GraphProto", known: Collection[str]) -> list[str]:
        import onnx

        floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
        types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output, *graph.input)}
        names = (name for node in graph.node if self._quantized(node) for name in (*node.input, *node.output))
        return list(dict.fromkeys(name for name in names if name in known and types[name] in floats))

    def _before_clipping(self, graph: "onnx.GraphProto", wanted: Collection[str]) -> dict[str, str]:
        """Return the input -> the output of each Relu or Clip whose input nothing else reads."""
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in onnx_file.nodes(graph):
            for name in node.input:
                readers.setdefault(name, []).append(node)
        outside = {v.name for v in (*graph.output, *graph.input)}
        found: dict[str, str] = {}
        for name in wanted:
            (reader, *others) = readers.get(name) or (None,)
            if reader is None or others or name in outside or reader.op_type not in _CLIPPING:
                continue
            if self._quantized(reader) and reader.input[0] == name and reader.output[0] in wanted:
                found[name] = reader.output[0]
        return {name: _end(found, name) for name in found}

    def _quantized(self, node: "onnx.NodeProto") -> bool:
        return node.op_type in self._ops and node.name not in self._excluded


def _end(links: dict[str, str], name: str) -> str:
    while name in links:
        name = links[name]
    return name


def _share_first_dim(inputs: "Sequence[onnx.ValueInfoProto]") -> bool:
    firsts = set()
    for value in inputs:
        dims = value.type.tensor_type.shape.dim
        firsts.add(dims[0].dim_param if dims else "")
    return len(firsts) == 1 and "" not in firsts
