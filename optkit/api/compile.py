"""`optkit compile`: a package of native code by AOTInductor, from a PyTorch model or a captured program."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeGuard

from optkit.api.arguments import (
    Data,
    Dims,
    Evaluate,
    Inputs,
    ModelFile,
    Progress,
    Scalar,
    StrPath,
    ToFeed,
    Verification,
    call,
    open_model_file,
    settings,
)
from optkit.api.export import source_model
from optkit.api.make import check_output, make, temporary_source
from optkit.artifact import Artifact, Passport, passport_path
from optkit.errors import RecipeError
from optkit.stages import CompileAoti
from optkit.untrusted.paths import is_file

if TYPE_CHECKING:
    import torch


def compile_aoti(
    model: "ModelFile | torch.nn.Module",
    output: StrPath,
    *,
    device: Literal["cpu", "cuda"] = "cpu",
    precision: Literal["fp32", "fp16", "bf16"] = "fp32",
    max_autotune: bool = False,
    freezing: bool = False,
    time_limit_s: float | None = None,
    inputs: Inputs | None = None,
    dims: Dims | None = None,
    example: object = None,
    outputs: Sequence[str] | None = None,
    weights: StrPath | None = None,
    weights_key: str | None = None,
    args: Mapping[str, Scalar] | None = None,
    data: Data | None = None,
    to_feed: ToFeed | None = None,
    evaluate: Evaluate | None = None,
    max_drop: float | None = None,
    atol: float | None = None,
    rtol: float | None = None,
    allow_batch_dependence: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Passport:
    """Compile a model to native code for one device, and verify the package against the model.

    Loading a package executes it. It runs on a processor or GPU of the same kind, with the same or a newer torch.

    Args:
        model: module in memory, or a source as `export_onnx` takes it, or the .pt2 file of an `export-program` step.
        output: file to write, with the suffix .pt2; its passport is written beside it.
        device: device that the package runs on.
        precision: precision of the weights and the computation; inputs and outputs keep their types. FP32 is FP32, never TF32.
        max_autotune: measure more ways to compute each operator, which takes minutes.
        freezing: fold weights into constants, so that they can be packed for the device.
        time_limit_s: time after which the compiler is stopped, in seconds; None sets no limit.
        inputs: inputs of the model, for example `{"image": "float32[batch,3,224,224]"}`; None derives them from example inputs.
        dims: range of each named dimension as (min, opt, max), for example `{"batch": (1, 8, 64)}`; the package accepts no other size.
        example: example inputs, or a function that returns them as `"file.py:function"`; used if `inputs` is not api_call.
        outputs: names of the outputs, in order; None derives them from the outputs of the model.
        weights: file with a state dict to load into the model.
        weights_key: key of the state dict in `weights`; None uses the one that fits the model.
        args: arguments of the factory function.
        data: real samples for verification; None uses seeded random values.
        to_feed: function that converts one item of `data` to a feed.
        evaluate: function that takes `predict` (feed -> output name -> array) and returns a number; larger is better.
        max_drop: largest allowed drop in accuracy, in the unit of `evaluate`; None sets no limit.
        atol: absolute tolerance for differences of outputs; None uses the default of the precision.
        rtol: relative tolerance for differences of outputs; None uses the default of the precision.
        allow_batch_dependence: accept a model whose outputs for a sample depend on the other samples in the batch.
        force: replace `output` if it exists.
        progress: callback `progress(description, done, total)` for long loops; `total` is None if it is unknown.

    Returns:
        the passport of the package; if `failures` is not empty, a limit was exceeded and nothing was written.

    Raises:
        OptkitError: the model cannot be compiled or the file cannot be written; nothing was changed.
    """
    stage = settings(
        CompileAoti,
        device=device,
        precision=precision,
        max_autotune=max_autotune,
        freezing=freezing,
        time_limit_s=time_limit_s,
    )
    output = Path(output)
    if output.suffix != ".pt2":
        raise RecipeError(
            f"{output}: does not end in .pt2; torch loads a package only under such a name. Give another name with -o."
        )
    check_output(output, force)
    with call(progress) as api_call:
        samples = api_call.data(data, to_feed)
        verification = Verification(
            samples,
            api_call.function(evaluate),
            max_drop,
            atol,
            rtol,
            allow_batch_dependence=allow_batch_dependence,
        )
        if _is_captured(model):
            of_source = {
                "--input": inputs,
                "--example": example,
                "--weights": weights,
                "--weights-key": weights_key,
                "--set": args,
                "--output-name": outputs,
            }
            if wrong := next((option for option, value in of_source.items() if value), None):
                raise RecipeError(f"{wrong}: applies only to a model source, but {model} has a passport. Omit it.")
            return make(stage, open_model_file(model, dims), output, verification, force=force)
        source = source_model(api_call, model, inputs, dims, example, outputs, weights, weights_key, args, samples)
        with temporary_source(source) as made:
            return make(stage, made, output, verification, force=force)


def _is_captured(model: object) -> TypeGuard[ModelFile]:
    """Whether a model is a captured program with a passport, which declares its inputs."""
    if isinstance(model, (Passport, Artifact)):
        return True
    if not isinstance(model, (str, os.PathLike)):
        return False
    path = Path(os.fspath(model))
    return path.suffix == ".pt2" and is_file(passport_path(path))
