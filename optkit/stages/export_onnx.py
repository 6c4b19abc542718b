"""nn.Module -> ONNX, with every declared dynamic dimension, at the opset that was asked for."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from optkit import onnx_file
from optkit.artifact import Artifact, Format, Precision
from optkit.data import random_feed
from optkit.errors import StageError
from optkit.forward import baked_in_notes, by_position, forward_call
from optkit.source import load_module
from optkit.stages.base import Stage
from optkit.stages.refusal import captured_output, lost_dimension, refusal
from optkit.tensors import Feed, TensorSpec, example_sizes

if TYPE_CHECKING:
    import onnx_ir
    import torch


class ExportOnnx(Stage):
    """Write an ONNX file and check it: opset, IR, inputs and outputs, dynamic dimensions, onnx.checker.

    `exporter: auto` and `best` are choices between two runs of this stage, made by `choose.exporter`; the stage itself does one.
    """

    accepts: ClassVar[frozenset[Format]] = frozenset({Format.PYTORCH})
    produces: ClassVar[Format] = Format.ONNX
    filename: ClassVar[str] = "model.onnx"

    stage: Literal["export-onnx"] = "export-onnx"
    exporter: Literal["auto", "best", "dynamo", "torchscript"] = "auto"
    opset: int = 20
    ir_version: int | None = None  # None takes what the exporter writes
    strict: bool = False  # refuse a trace that turned a value of the example into a constant

    def make(self, source: Artifact, path: Path) -> Artifact:
        """Export with the one exporter named, and refuse a file that is not what was asked for."""
        if self.exporter in ("auto", "best"):
            raise StageError(
                f"exporter {self.exporter!r} is a choice, not an exporter; expected dynamo or torchscript here"
            )
        module = load_module(source)
        feed = random_feed(source.inputs, example_sizes(source.dims))
        export = _dynamo if self.exporter == "dynamo" else _torchscript
        log = io.StringIO()
        try:
            with warnings.catch_warnings(record=True) as caught, captured_output() as log:
                warnings.simplefilter("always")
                export(module, feed, path, source.inputs, source.outputs, self.opset)
        except Exception as e:  # the exporters raise whatever torch and the user's code raise
            why = refusal(e, source.inputs, log.getvalue())
            raise StageError(f"the {self.exporter} exporter failed: {why}") from e
        baked = baked_in_notes(caught)
        if self.strict and baked:
            raise StageError(
                f"the {self.exporter} exporter baked values into the file, and strict allows none: {'; '.join(baked)}"
            )
        onnx_file.gather(path)  # the TorchScript exporter writes a file for each weight above 2 GB, and one below it
        onnx_file.check(path)
        facts = onnx_file.facts(path)
        self._check_versions(facts)
        _check_specs(facts, source.inputs, source.outputs)
        notes = [f"exported by the {self.exporter} exporter, opset {facts.opset}, IR {facts.ir_version}"]
        notes += [f"no output depends on input {name!r}" for name in onnx_file.unused_inputs(path)] + baked
        return self.artifact(source, path, Precision.FP32, files=facts.files, notes=notes)

    def _check_versions(self, facts: onnx_file.OnnxFacts) -> None:
        if facts.opset != self.opset:
            raise StageError(
                f"the {self.exporter} exporter wrote opset {facts.opset}; asked for {self.opset}. "
                f"Ask for opset {facts.opset}, or use --exporter {_other(self.exporter)}."
            )
        if self.ir_version is not None and facts.ir_version != self.ir_version:
            raise StageError(f"the file has IR version {facts.ir_version}; asked for {self.ir_version}")


def _other(exporter: str) -> str:
    return "torchscript" if exporter == "dynamo" else "dynamo"


def _dynamo(
    module: "torch.nn.Module",
    feed: Feed,
    path: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    opset: int,
) -> None:
    import torch

    call = forward_call(module, inputs)
    args, kwargs = call.arguments({name: torch.from_numpy(array) for name, array in feed.items()})
    shapes = {spec.name: _dynamic(spec) for spec in inputs}
    size = sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))
    program = torch.onnx.export(
        module,
        args,
        kwargs=kwargs,
        dynamo=True,
        opset_version=opset,
        input_names=[spec.name for spec in inputs],
        output_names=[spec.name for spec in outputs],
        dynamic_shapes=shapes if kwargs else tuple(shapes.values()),
        verbose=False,
    )
    if program is None:
        raise AssertionError("torch.onnx.export returned no program")
    _rename_namesakes(program.model, {spec.name for spec in (*inputs, *outputs)})
    # Its default writes a second file for any model.
    program.save(path, external_data=size > onnx_file.ONE_FILE_BYTES)


def _rename_namesakes(model: "onnx_ir.Model", names: set[str]) -> None:
    """Rename inner values that are called as an input or output was asked to be: torch renames without looking for them."""
    ends = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    for node in model.graph:
        for value in node.outputs:
            if value.name in names and id(value) not in ends:
                value.name = f"{value.name}_of_{node.name or node.op_type}"


def _torchscript(
    module: "torch.nn.Module",
    feed: Feed,
    path: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    opset: int,
) -> None:
    import torch

    axes = {spec.name: _dynamic(spec) for spec in (*inputs, *outputs)}
    torch.onnx.export(
        by_position(module, forward_call(module, inputs)),
        tuple(torch.from_numpy(feed[spec.name]) for spec in inputs),
        str(path),
        dynamo=False,
        opset_version=opset,
        input_names=[spec.name for spec in inputs],
        output_names=[spec.name for spec in outputs],
        dynamic_axes={name: dims for name, dims in axes.items() if dims},
    )


def _dynamic(spec: TensorSpec) -> dict[int, str]:
    return {axis: dim for axis, dim in enumerate(spec.shape) if isinstance(dim, str)}


def _check_specs(facts: onnx_file.OnnxFacts, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    """Refuse a file whose inputs or outputs are not the declared ones, or have lost a dynamic dimension."""
    for kind, found, declared in (("input", facts.inputs, inputs), ("output", facts.outputs, outputs)):
        lost = [spec.name for spec in declared if spec.name not in {f.name for f in found}]
        if kind == "input" and lost:
            names = ", ".join(map(repr, lost))
            raise StageError(
                f"the file has no input {names}: no output depends on it. Leave it out of the declared inputs."
            )
        if [spec.name for spec in found] != [spec.name for spec in declared]:
            raise StageError(f"the file has {kind}s {_names(found)}; expected {_names(declared)}")
        for got, want in zip(found, declared, strict=True):
            if got.dtype != want.dtype or len(got.shape) != len(want.shape):
                raise StageError(f"{kind} {got.name!r} is {got.type_text} in the file; expected {want.type_text}")
            for axis, (a, b) in enumerate(zip(got.shape, want.shape, strict=True)):
                if isinstance(b, str) and isinstance(a, int):
                    raise StageError(lost_dimension(kind, want, axis, str(a)))
                if isinstance(a, int) and a != b:
                    raise StageError(f"{kind} {got.name!r} is {got.type_text} in the file; expected {want.type_text}")


def _names(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(spec.name for spec in specs) or "none"
