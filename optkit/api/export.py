"""`optkit export`: export a PyTorch model to a file and verify the file against the model."""

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
    Scalar,
    SourceModel,
    StrPath,
    ToFeed,
    Verification,
    as_dims,
    as_inputs,
    call,
    settings,
)
from optkit.api.make import check_output, make, temporary_source
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
    weights_key: str | None = None,
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
    """Export a model to TorchScript, and verify the file against the model.

    Args:
        model: module in memory, or a source: `file.py:build`, `package.module:factory`, a TorchScript or .pt2 file, a Hugging Face folder.
        output: file to write; its passport is written beside it.
        inputs: inputs of the model, for example `{"image": "float32[batch,3,224,224]"}`; None derives them from example inputs.
        dims: range of each named dimension as (min, opt, max), for example `{"batch": (1, 8, 64)}`.
        example: example inputs, or a function that returns them as `"file.py:function"`; used if `inputs` is not given.
        outputs: names of the outputs, in order; None derives them from the outputs of the model.
        weights: file with a state dict to load into the model.
        weights_key: key of the state dict in `weights`; None uses the one that fits the model.
        args: arguments of the factory function.
        method: auto (script, then trace if scripting fails), script or trace.
        strict: fail if tracing turned a value of the example inputs into a constant.
        data: real samples for verification; None uses seeded random values.
        to_feed: function that converts one item of `data` to a feed.
        atol: absolute tolerance for differences of outputs; None uses the default of the precision.
        rtol: relative tolerance for differences of outputs; None uses the default of the precision.
        allow_batch_dependence: accept a model whose outputs for a sample depend on the other samples in the batch.
        repro: new folder for a script that repeats the export without optkit.
        force: replace `output` if it exists.
        progress: callback `progress(description, done, total)` for long loops; `total` is None if it is unknown.

    Returns:
        the passport of the file; if `failures` is not empty, its outputs differ from the model and nothing was written.

    Raises:
        OptkitError: the model cannot be exported or the file cannot be written; nothing was changed.
    """
    stage = settings(ExportTorchScript, method=method, strict=strict)
    with call(progress) as api_call:
        samples = api_call.data(data, to_feed)
        source = source_model(api_call, model, inputs, dims, example, outputs, weights, weights_key, args, samples)
        verification = Verification(samples, atol=atol, rtol=rtol, allow_batch_dependence=allow_batch_dependence)
        return _export(stage, source, Path(output), verification, repro, force)


def export_onnx(
    model: "torch.nn.Module | StrPath",
    output: StrPath,
    *,
    inputs: Inputs | None = None,
    dims: Dims | None = None,
    example: object = None,
    outputs: Sequence[str] | None = None,
    weights: StrPath | None = None,
    weights_key: str | None = None,
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
    """Export a model to ONNX, and verify the file against the model at every corner of its dimensions.

    Args:
        model: module in memory, or a source: `file.py:build`, `package.module:factory`, a TorchScript or .pt2 file, a Hugging Face folder.
        output: file to write; its passport is written beside it.
        inputs: inputs of the model, for example `{"image": "float32[batch,3,224,224]"}`; None derives them from example inputs.
        dims: range of each named dimension as (min, opt, max), for example `{"batch": (1, 8, 64)}`.
        example: example inputs, or a function that returns them as `"file.py:function"`; used if `inputs` is not given.
        outputs: names of the outputs, in order; None derives them from the outputs of the model.
        weights: file with a state dict to load into the model.
        weights_key: key of the state dict in `weights`; None uses the one that fits the model.
        args: arguments of the factory function.
        opset: opset version of the file.
        exporter: auto (dynamo, then torchscript, then script), best (the faster of dynamo and torchscript), dynamo, torchscript (tracing), or
            script (keeps branches and loops).
        dynamo_limit_s: limit for the CPU time of the dynamo exporter, in seconds.
        strict: fail if tracing turned a value of the example inputs into a constant.
        data: real samples for verification; None uses seeded random values.
        to_feed: function that converts one item of `data` to a feed.
        atol: absolute tolerance for differences of outputs; None uses the default of the precision.
        rtol: relative tolerance for differences of outputs; None uses the default of the precision.
        allow_batch_dependence: accept a model whose outputs for a sample depend on the other samples in the batch.
        repro: new folder for a script that repeats the export without optkit.
        force: replace `output` if it exists.
        progress: callback `progress(description, done, total)` for long loops; `total` is None if it is unknown.

    Returns:
        the passport of the file; if `failures` is not empty, its outputs differ from the model and nothing was written.

    Raises:
        OptkitError: the model cannot be exported or the file cannot be written; nothing was changed.
    """
    stage = settings(ExportOnnx, opset=opset, exporter=exporter, strict=strict, dynamo_limit_s=dynamo_limit_s)
    with call(progress) as api_call:
        samples = api_call.data(data, to_feed)
        source = source_model(api_call, model, inputs, dims, example, outputs, weights, weights_key, args, samples)
        verification = Verification(samples, atol=atol, rtol=rtol, allow_batch_dependence=allow_batch_dependence)
        return _export(stage, source, Path(output), verification, repro, force)


def source_model(
    api_call: Call,
    model: object,
    inputs: Inputs | None,
    dims: Dims | None,
    example: object,
    outputs: Sequence[str] | None,
    weights: StrPath | None,
    weights_key: str | None,
    args: Mapping[str, Scalar] | None,
    data: str | None = None,
) -> SourceModel:
    """Return the source model and contract that the arguments describe; `data` is run to find the outputs."""
    return SourceModel(
        target=api_call.model(model),
        inputs=as_inputs(inputs),
        dims=as_dims(dims),
        example=api_call.example(example),
        outputs=tuple(outputs) if outputs else None,
        weights=user_path(weights) if weights else None,
        weights_key=weights_key,
        args=dict(args or {}),
        data=data,
    )


def _export(
    stage: ExportOnnx | ExportTorchScript,
    model: SourceModel,
    output: Path,
    verification: Verification,
    repro: StrPath | None,
    force: bool,
) -> Passport:
    check_output(output, force)
    with temporary_source(model) as source:
        if repro:
            from optkit.api.repro import write_repro  # imports numpy, which an engine build does not need

            script = write_repro(source, stage, Path(repro))
            logger.info("to repeat this export without optkit: cd %s && python %s", repro, script.name)
        return make(stage, source, output, verification, force=force)
