"""`optkit export`: from a PyTorch model to a file, proven equal to the model."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from optkit.api.arguments import (
    Call,
    Data,
    Dims,
    Inputs,
    Progress,
    Proof,
    Scalar,
    SourceModel,
    StrPath,
    ToFeed,
    as_dims,
    as_inputs,
    call,
    settings,
)
from optkit.api.make import check_output, make, making_source
from optkit.artifact import Passport
from optkit.stages import ExportOnnx, ExportTorchScript
from optkit.untrusted.paths import user_path

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


def export_torchscript(
    model: "torch.nn.Module | StrPath",
    output: StrPath,
    *,
    inputs: Inputs | None = None,
    dims: Dims | None = None,
    example: object = None,
    outputs: Sequence[str] | None = None,
    weights: StrPath | None = None,
    args: Mapping[str, Scalar] | None = None,
    method: Literal["auto", "script", "trace"] = "auto",
    strict: bool = False,
    data: Data | None = None,
    to_feed: ToFeed | None = None,
    atol: float | None = None,
    rtol: float | None = None,
    allow_batch_dependence: bool = False,
    repro: StrPath | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Passport:
    """Export a model to TorchScript, and prove the file equal to the model.

    Args:
        model: a module in memory, or a source: `file.py:build`, `package.module:factory`, a TorchScript or .pt2 file, a Hugging Face folder.
        output: the file to write; its passport goes beside it.
        inputs: what the model takes, as `{"image": "float32[batch,3,224,224]"}`; None reads it off example inputs.
        dims: the range of each named dimension, as `{"batch": (1, 8, 64)}` for min, opt and max.
        example: example inputs, or `"file.py:function"` that gives some.
        outputs: names for the outputs, in order.
        weights: a state dict to load.
        args: arguments of the factory.
        method: auto scripts, and traces where that fails.
        strict: refuse a trace that turned a value of the example into a constant.
        data: real samples for the proof; without any, seeded random values.
        to_feed: makes a feed of one item of `data`.
        atol: absolute tolerance; None takes that of the precision.
        rtol: relative tolerance; None takes that of the precision.
        allow_batch_dependence: allow a model whose answers depend on the other samples of a batch.
        repro: a new folder for a script that repeats the export without optkit.
        force: replace `output` where it exists.
        progress: is called with what is done, how many turns are done, and of how many.

    Returns:
        what was made and proven; with `failures` it is not equal to the model, and nothing was written.

    Raises:
        OptkitError: it cannot be exported, or not be written; nothing was changed.
    """
    stage = settings(ExportTorchScript, method=method, strict=strict)
    with call(progress) as given:
        source = source_model(given, model, inputs, dims, example, outputs, weights, args)
        proof = Proof(given.data(data, to_feed), atol=atol, rtol=rtol, allow_batch_dependence=allow_batch_dependence)
        return _export(stage, source, Path(output), proof, repro, force)


def export_onnx(
    model: "torch.nn.Module | StrPath",
    output: StrPath,
    *,
    inputs: Inputs | None = None,
    dims: Dims | None = None,
    example: object = None,
    outputs: Sequence[str] | None = None,
    weights: StrPath | None = None,
    args: Mapping[str, Scalar] | None = None,
    opset: int = 20,
    exporter: Literal["auto", "best", "dynamo", "torchscript", "script"] = "auto",
    dynamo_limit_s: float = 60.0,
    strict: bool = False,
    data: Data | None = None,
    to_feed: ToFeed | None = None,
    atol: float | None = None,
    rtol: float | None = None,
    allow_batch_dependence: bool = False,
    repro: StrPath | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Passport:
    """Export a model to ONNX, and prove the file equal to the model at every corner of its dimensions.

    Args:
        model: a module in memory, or a source: `file.py:build`, `package.module:factory`, a TorchScript or .pt2 file, a Hugging Face folder.
        output: the file to write; its passport goes beside it.
        inputs: what the model takes, as `{"image": "float32[batch,3,224,224]"}`; None reads it off example inputs.
        dims: the range of each named dimension, as `{"batch": (1, 8, 64)}` for min, opt and max.
        example: example inputs, or `"file.py:function"` that gives some.
        outputs: names for the outputs, in order.
        weights: a state dict to load.
        args: arguments of the factory.
        opset: that the file must have.
        exporter: auto tries dynamo, torchscript (a trace) and script in turn; best takes the faster of the first two.
        dynamo_limit_s: processor time after which the dynamo exporter is stopped.
        strict: refuse a trace that turned a value of the example into a constant.
        data: real samples for the proof; without any, seeded random values.
        to_feed: makes a feed of one item of `data`.
        atol: absolute tolerance; None takes that of the precision.
        rtol: relative tolerance; None takes that of the precision.
        allow_batch_dependence: allow a model whose answers depend on the other samples of a batch.
        repro: a new folder for a script that repeats the export without optkit.
        force: replace `output` where it exists.
        progress: is called with what is done, how many turns are done, and of how many.

    Returns:
        what was made and proven; with `failures` it is not equal to the model, and nothing was written.

    Raises:
        OptkitError: it cannot be exported, or not be written; nothing was changed.
    """
    stage = settings(ExportOnnx, opset=opset, exporter=exporter, strict=strict, dynamo_limit_s=dynamo_limit_s)
    with call(progress) as given:
        source = source_model(given, model, inputs, dims, example, outputs, weights, args)
        proof = Proof(given.data(data, to_feed), atol=atol, rtol=rtol, allow_batch_dependence=allow_batch_dependence)
        return _export(stage, source, Path(output), proof, repro, force)


def source_model(
    given: Call,
    model: object,
    inputs: Inputs | None,
    dims: Dims | None,
    example: object,
    outputs: Sequence[str] | None,
    weights: StrPath | None,
    args: Mapping[str, Scalar] | None,
) -> SourceModel:
    """Return the model that a call names, with its contract."""
    return SourceModel(
        target=given.model(model),
        inputs=as_inputs(inputs),
        dims=as_dims(dims),
        example=given.example(example),
        outputs=tuple(outputs) if outputs else None,
        weights=user_path(weights) if weights else None,
        args=dict(args or {}),
    )


def _export(
    stage: ExportOnnx | ExportTorchScript,
    model: SourceModel,
    output: Path,
    proof: Proof,
    repro: StrPath | None,
    force: bool,
) -> Passport:
    check_output(output, force)
    with making_source(model) as source:
        if repro:
            from optkit.api.repro import write_repro  # numpy, which a build of an engine does without

            script = write_repro(source, stage, Path(repro))
            logger.info("to repeat this without optkit: cd %s && python %s", repro, script.name)
        return make(stage, source, output, proof, force=force)
