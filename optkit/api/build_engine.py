"""`optkit build-engine`: build a TensorRT engine from an ONNX or PyTorch model, and verify it if a GPU is available."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeGuard

from pydantic import ValidationError

from optkit.api.arguments import (
    Data,
    Dims,
    Evaluate,
    Inputs,
    ModelFile,
    Progress,
    Scalar,
    SourceModel,
    StrPath,
    ToFeed,
    Verification,
    as_dims,
    call,
    model_path,
    open_model_file,
    pairs,
    settings,
)
from optkit.api.export import source_model
from optkit.api.make import check_output, make, make_file, temporary_source
from optkit.artifact import Artifact, Passport
from optkit.artifact.engine import Profile, ShapeRange, hull, profile_dims, profiles_faults
from optkit.artifact.gates import Gates
from optkit.checks import Requirements
from optkit.data import Samples
from optkit.errors import RecipeError, StageError
from optkit.pytorch.source import open_artifact
from optkit.record import faults
from optkit.stages import BuildTensorRt, ExportOnnx

if TYPE_CHECKING:
    import torch


def build_engine(
    model: "ModelFile | torch.nn.Module",
    output: StrPath,
    *,
    precision: Literal["fp32", "fp16", "int8", "int8+fp16"] | None = None,
    calibration: Data | None = None,
    profiles: Sequence[str | Mapping[str, str]] = (),
    runtime: Literal["auto", "tensorrt", "tensorrt-rtx"] = "auto",
    gpu: Sequence[str] = (),
    tensorrt_python: StrPath | None = None,
    workspace_mib: int | None = None,
    optimization_level: int | None = None,
    tf32: bool = False,
    timing_cache: str = "auto",
    version_compatible: bool = False,
    hardware_compatible: Literal["ampere-plus", "same-compute-capability"] | None = None,
    refit: bool = False,
    strip: bool = False,
    require: Mapping[str, float | str] | None = None,
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
    """Build a TensorRT engine, and verify it if a GPU is available; otherwise the passport records that it is unverified.

    Args:
        model: ONNX model, or a model as `export_onnx` takes it, which is exported and verified first.
        output: file to write; its passport is written beside it.
        precision: precision to convert the ONNX model to before the build: fp32, fp16, int8 or int8+fp16; None keeps the precision of the model.
        calibration: real samples for the calibration of INT8 ranges.
        profiles: optimization profiles, each with the min, opt and max shape of every input, for example
            `{"image": "1x3x224x224,8x3x224x224,64x3x224x224"}`; empty uses the declared ranges.
        runtime: tensorrt (builds on a GPU), tensorrt-rtx (builds ahead of time), or auto (the one that is available).
        gpu: target GPUs, for example `["sm86", "RTX 4090"]`; empty uses the default of the runtime.
        tensorrt_python: Python interpreter with TensorRT installed; None uses this one.
        workspace_mib: maximum workspace memory of a layer, in MiB; None sets no limit.
        optimization_level: builder optimization level, 0 (fast build) to 5; None uses the default of TensorRT, 3.
        tf32: allow TF32 (10-bit mantissa) for FP32 math on sm80 and newer.
        timing_cache: auto (one for each GPU, release and driver), none, or the path of a file.
        version_compatible: build an engine that later TensorRT releases can load.
        hardware_compatible: build an engine that other GPUs can load: ampere-plus or same-compute-capability.
        refit: build an engine whose weights can be replaced later.
        strip: omit weights that are refitted later.
        require: minimum fraction of layers that compute in a precision, for example `{"fp16": 0.9}`; needs a GPU.
        inputs: inputs of a PyTorch model, for example `{"image": "float32[batch,3,224,224]"}`; None derives them from example inputs.
        dims: range of each named dimension as (min, opt, max), for example `{"batch": (1, 8, 64)}`.
        example: example inputs of a PyTorch model, or a function that returns them as `"file.py:function"`; used if `inputs` is not given.
        outputs: names of the outputs of a PyTorch model, in order; None derives them from the outputs of the model.
        weights: file with a state dict to load into a PyTorch model.
        weights_key: key of the state dict in `weights`; None uses the one that fits the model.
        args: arguments of the factory function of a PyTorch model.
        data: real samples for verification; None uses the samples of `calibration`; without `calibration`, seeded random values.
        to_feed: function that converts one item of `calibration` or `data` to a feed.
        evaluate: function that takes `predict` (feed -> output name -> array) and returns a number; larger is better.
        max_drop: largest allowed drop in accuracy, in the unit of `evaluate`; None sets no limit.
        atol: absolute tolerance for differences of outputs; None uses the default of the precision.
        rtol: relative tolerance for differences of outputs; None uses the default of the precision.
        allow_batch_dependence: accept a model whose outputs for a sample depend on the other samples in the batch.
        force: replace `output` if it exists.
        progress: callback `progress(description, done, total)` for long loops; `total` is None if it is unknown.

    Returns:
        the passport of the file; if `failures` is not empty, a limit was exceeded and nothing was written.

    Raises:
        OptkitError: the engine cannot be built or the file cannot be written; nothing was changed.
    """
    check_output(Path(output), force)
    with call(progress) as api_call:
        samples = api_call.data(calibration, to_feed)
        stage = settings(
            BuildTensorRt,
            runtime=runtime,
            python=str(Path(tensorrt_python).absolute()) if tensorrt_python else None,
            precision=precision,
            calibration=samples,
            profiles=tuple(map(as_profile, profiles)),
            gpu=tuple(gpu),
            workspace_mib=workspace_mib,
            optimization_level=optimization_level,
            tf32=tf32,
            timing_cache=timing_cache,
            version_compatible=version_compatible,
            hardware_compatible=hardware_compatible,
            refit=refit,
            strip=strip,
            require=dict(require or {}),
        )
        verification = Verification(
            api_call.data(data, to_feed) if data is not None else samples,
            api_call.function(evaluate),
            max_drop,
            atol,
            rtol,
            allow_batch_dependence=allow_batch_dependence,
        )
        source_options = {
            "--input": inputs,
            "--example": example,
            "--weights": weights,
            "--weights-key": weights_key,
            "--set": args,
            "--output-name": outputs,
        }
        if _is_onnx(model):
            given_option = next((option for option, value in source_options.items() if value), None)
            if given_option:
                raise RecipeError(
                    f"{given_option}: applies only to a model source, but {model} is an ONNX file. Omit it."
                )
            return make(stage, _open_onnx(model, dims, stage.profiles), Path(output), verification, force=force)
        source = source_model(api_call, model, inputs, dims, example, outputs, weights, weights_key, args)
        with temporary_source(source) as made:
            return make(stage, _export_onnx(source, made), Path(output), verification, force=force)


def as_profile(profile: str | Mapping[str, str]) -> Profile:
    """Parse a profile given as input -> shapes, or as `input=min,opt,max;other=min,opt,max`.

    Raises:
        RecipeError: the syntax of an input is invalid.
    """
    parts = profile.items() if isinstance(profile, Mapping) else pairs("--profile", _parts(profile), last=True).items()
    found: Profile = {}
    for name, shapes in parts:
        try:
            found[name] = ShapeRange.parse(shapes)
        except ValidationError as e:
            raise RecipeError(f"--profile {name}: {'; '.join(faults(e)).removeprefix('document: ')}") from e
        except ValueError as e:
            raise RecipeError(f"--profile {name}: {e}") from e
    return found


def _parts(profile: str) -> list[str]:
    return [part.strip() for part in profile.split(";")]


def _is_onnx(model: object) -> TypeGuard[ModelFile]:
    """Whether a model is an ONNX file, and not the source of a PyTorch model."""
    if isinstance(model, (Passport, Artifact)):
        return True
    return isinstance(model, (str, os.PathLike)) and os.fspath(model).endswith(".onnx")


def _open_onnx(model: ModelFile, dims: Dims | None, profiles: Sequence[Profile]) -> Artifact:
    """Open an ONNX file; profiles, if given, set the ranges of its dimensions."""
    if not profiles:
        return open_model_file(model, dims)
    path = model_path(model)
    artifact = open_artifact(path, as_dims(dims))
    faults = profiles_faults(artifact.inputs, profiles)
    if faults:
        raise RecipeError(f"{path}: {'; '.join(faults)}")
    ranges = hull([profile_dims(artifact.inputs, profile) for profile in profiles])
    return artifact.model_copy(update={"dims": ranges})


def _export_onnx(model: SourceModel, source: Artifact) -> Artifact:
    """Export a model to ONNX in the folder of its source artifact, and verify the file against the model."""
    made = make_file(
        ExportOnnx(),
        source,
        source.path.with_name("model.onnx"),
        requirements=Requirements(),
        gates=Gates(batch_independence=False),
        samples=Samples(source.inputs, source.dims, None),
    )
    if made.failures:
        raise StageError(f"{model.target}: the outputs of its ONNX file differ from the model: {made.failures[0]}")
    return made.artifact
