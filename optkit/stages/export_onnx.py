"""nn.Module -> ONNX, with every declared dynamic dimension, at the requested opset."""

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from optkit import onnx_file
from optkit.artifact import Artifact, Format, Precision, environment
from optkit.artifact.tensors import Feed, TensorSpec
from optkit.errors import StageError
from optkit.pytorch import dynamo
from optkit.pytorch.export_failure import captured_output, lost_dimension, refusal, script_reason
from optkit.pytorch.forward import dynamic_axes, forward_call, plain_attention
from optkit.pytorch.source import load_module
from optkit.pytorch.stable_forms import use_stable_forms
from optkit.pytorch.tracing import (
    baked_in_values,
    by_position,
    quiet_tensor_constants,
    warn_unrolled_loops,
    why_not_scripted,
)
from optkit.pytorch.weights import weights_bytes
from optkit.stages.base import Stage
from optkit.system.space import check_space

if TYPE_CHECKING:
    import torch

_Export = Callable[
    ["torch.nn.Module", Feed, Path, Sequence[TensorSpec], Sequence[TensorSpec], int],
    None,
]


class ExportOnnx(Stage):
    """Write an ONNX file and check it: opset, IR, inputs and outputs, dynamic dimensions, onnx.checker.

    `torchscript` traces the model; `script` compiles it first, which keeps its branches and loops. Both use the TorchScript exporter.
    `exporter: auto` and `best` compare several runs of this stage: `choose.exporter` does it. The stage itself runs one exporter.
    """

    accepts: ClassVar[frozenset[Format]] = frozenset({Format.PYTORCH})
    produces: ClassVar[Format] = Format.ONNX
    filename: ClassVar[str] = "model.onnx"

    stage: Literal["export-onnx"] = "export-onnx"
    exporter: Literal["auto", "best", "dynamo", "torchscript", "script"] = "auto"
    opset: int = 20
    ir_version: int | None = None  # None: the exporter's own
    strict: bool = False  # refuse a trace that turned a value of the example into a constant
    dynamo_limit_s: float = Field(
        default=60.0, gt=0
    )  # of processor time: for some models the dynamo exporter runs for hours

    def hardware(self) -> dict[str, str]:
        """Return the processor where the fastest of two exports is chosen."""
        return environment.hardware() if self.exporter == "best" else {}

    def make(self, source: Artifact, path: Path) -> Artifact:
        """Export with the named exporter, and check the file."""
        if self.exporter in ("auto", "best"):
            raise StageError(
                f"exporter {self.exporter!r} is a choice, not an exporter; expected dynamo, torchscript or script here"
            )
        baked = self._export(source, path)
        onnx_file.gather(path)  # above 2 GB the TorchScript exporter writes one file per weight
        facts = onnx_file.facts(path)
        stable = use_stable_forms(path, facts.nodes)
        if {spec.name for spec in source.inputs} - {spec.name for spec in facts.inputs}:
            onnx_file.keep_inputs(path, source.inputs)
            facts = onnx_file.facts(path)
        onnx_file.check(path)
        self._check_versions(facts)
        _check_specs(facts, source.inputs, source.outputs)
        notes = [f"exported by the {self.exporter} exporter, opset {facts.opset}, IR {facts.ir_version}"]
        notes += [f"no output depends on input {name!r}" for name in facts.unused_inputs] + stable + baked
        return self.artifact(source, path, Precision.FP32, files=facts.files, notes=notes)

    def _export(self, source: Artifact, path: Path) -> list[str]:
        """Write the file, and return notes of the values that a trace baked in."""
        module = load_module(source)
        check_space(path.parent, weights_bytes(module), "the model")
        feed = self.example(source)
        export: _Export = {"dynamo": _dynamo, "torchscript": _torchscript, "script": _script}[self.exporter]
        log, lines, baked, limit = io.StringIO(), dict[str, str](), list[str](), dynamo.TimeLimit()
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(plain_attention())
                baked = stack.enter_context(baked_in_values())
                log = stack.enter_context(captured_output())
                if self.exporter == "dynamo":
                    lines = stack.enter_context(dynamo.number_lines())
                    limit = stack.enter_context(dynamo.limited(self.dynamo_limit_s))
                else:
                    stack.enter_context(warn_unrolled_loops())
                if self.exporter == "torchscript":  # the compiler does not accept a replaced torch.tensor
                    stack.enter_context(quiet_tensor_constants())
                export(module, feed, path, source.inputs, source.outputs, self.opset)
        except dynamo.TimeUp:
            raise self._stopped() from None
        except StageError:
            raise
        except Exception as e:  # torch and the user's code raise many types
            if limit.passed:
                raise self._stopped() from e
            why = refusal(e, forward_call(module, source.inputs).inputs, log.getvalue(), lines)
            raise StageError(f"the {self.exporter} exporter failed: {why}") from e
        if self.strict and baked:
            raise StageError(
                f"the {self.exporter} exporter baked values into the file, which strict does not allow: {'; '.join(baked)}"
            )
        return baked

    def _stopped(self) -> StageError:
        return StageError(
            f"the dynamo exporter was stopped after {self.dynamo_limit_s:g} s of processor time; with many dynamic dimensions it "
            f"may never end. Declare dimensions that need not vary, such as height and width, as numbers; or use "
            f"--exporter torchscript; or raise the limit with --dynamo-limit-s {10 * self.dynamo_limit_s:g}."
        )

    def _check_versions(self, facts: onnx_file.OnnxFacts) -> None:
        if facts.opset != self.opset:
            raise StageError(
                f"the {self.exporter} exporter wrote opset {facts.opset}; expected {self.opset}. "
                f"Use --opset {facts.opset}, or --exporter {_other(self.exporter)}."
            )
        if self.ir_version is not None and facts.ir_version != self.ir_version:
            raise StageError(f"the file has IR version {facts.ir_version}; expected {self.ir_version}")


def _other(exporter: str) -> str:
    return "torchscript" if exporter == "dynamo" else "dynamo"


_dynamo = dynamo.export


def _torchscript(
    module: "torch.nn.Module",
    feed: Feed,
    path: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    opset: int,
) -> None:
    import torch

    axes = {spec.name: dynamic_axes(spec) for spec in (*inputs, *outputs)}
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


def _script(
    module: "torch.nn.Module",
    feed: Feed,
    path: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    opset: int,
) -> None:
    import torch

    if why := why_not_scripted(module, forward_call(module, inputs)):
        raise StageError(f"the model cannot be scripted: {why}")
    try:
        scripted = torch.jit.script(module)
    except Exception as e:  # the frontend and the user's code raise many types
        raise StageError(f"the model cannot be scripted: {script_reason(e)}") from e
    _torchscript(scripted, feed, path, inputs, outputs, opset)


def _check_specs(facts: onnx_file.OnnxFacts, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    """Refuse a file whose inputs or outputs differ from the declared ones, or have lost a dynamic dimension."""
    for kind, found, declared in (("input", facts.inputs, inputs), ("output", facts.outputs, outputs)):
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
