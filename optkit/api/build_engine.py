"""`optkit build-engine`: a TensorRT engine from an ONNX file or from a PyTorch model, proven where a GPU is."""

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
    Proof,
    Scalar,
    SourceModel,
    StrPath,
    ToFeed,
    as_dims,
    call,
    model_path,
    open_model_file,
    pairs,
    settings,
)
from optkit.api.export import source_model
from optkit.api.make import check_output, make, make_file, making_source
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
    """Build a TensorRT engine, and prove it where a GPU is; without one the passport says what is not proven.

    Args:
        model: an ONNX file, or a model as `export_onnx` takes it, which is exported and proven first.
        output: the file to write; its passport goes beside it.
        precision: made in the ONNX file first; None takes that of the file.
        calibration: real samples, from which the ranges of INT8 are taken.
        profiles: each as `{"image": "1x3x224x224,8x3x224x224,64x3x224x224"}` for min, opt and max; none: the declared ranges.
        runtime: tensorrt builds on a GPU, tensorrt-rtx ahead of time; auto takes what is here.
        gpu: what to build for, as `["sm86", "RTX 4090"]`; none: what the runtime takes.
        tensorrt_python: the interpreter that has TensorRT; None takes this one.
        workspace_mib: the most memory of one layer, in MiB; None sets no limit.
        optimization_level: 0 (fast build) to 5; None takes TensorRT's own, 3.
        tf32: allow TF32 (10-bit mantissa) for FP32 math on sm80 and newer.
        timing_cache: auto (kept for each GPU, release and driver), none, or a file.
        version_compatible: also for later releases.
        hardware_compatible: also for other GPUs.
        refit: weights can be replaced later.
        strip: leave out weights that are refitted.
        require: the share of layers that must compute in a precision, as `{"fp16": 0.9}`; needs a GPU.
        inputs: of a PyTorch model, as `{"image": "float32[batch,3,224,224]"}`; None reads it off example inputs.
        dims: the range of each named dimension, as `{"batch": (1, 8, 64)}` for min, opt and max.
        example: example inputs of a PyTorch model, or `"file.py:function"` that gives some.
        outputs: names for the outputs of a PyTorch model, in order.
        weights: a state dict to load into a PyTorch model.
        weights_key: the key of the state dict, where the file has several; None takes the one that fits.
        args: arguments of the factory of a PyTorch model.
        data: real samples for the proof; without any those of `calibration`, else seeded random values.
        to_feed: makes a feed of one item of `calibration` and of `data`.
        evaluate: takes `predict` (a feed to output name -> array) and returns a number, larger is better.
        max_drop: how far accuracy may fall, in the unit of `evaluate`.
        atol: absolute tolerance; None takes that of the precision.
        rtol: relative tolerance; None takes that of the precision.
        allow_batch_dependence: allow a model whose answers depend on the other samples of a batch.
        force: replace `output` where it exists.
        progress: is called with what is done, how many turns are done, and of how many.

    Returns:
        what was made and proven; with `failures` it does not hold a limit, and nothing was written.

    Raises:
        OptkitError: it cannot be built, or not be written; nothing was changed.
    """
    check_output(Path(output), force)
    with call(progress) as given:
        samples = given.data(calibration, to_feed)
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
        proof = Proof(
            given.data(data, to_feed) if data is not None else samples,
            given.function(evaluate),
            max_drop,
            atol,
            rtol,
            allow_batch_dependence=allow_batch_dependence,
        )
        of_source = {
            "--input": inputs,
            "--example": example,
            "--weights": weights,
            "--weights-key": weights_key,
            "--set": args,
            "--output-name": outputs,
        }
        if _is_onnx(model):
            wrong = next((option for option, value in of_source.items() if value), None)
            if wrong:
                raise RecipeError(f"{wrong}: is for a model source, and {model} is an ONNX file. Leave it out.")
            return make(stage, _opened(model, dims, stage.profiles), Path(output), proof, force=force)
        source = source_model(given, model, inputs, dims, example, outputs, weights, weights_key, args)
        with making_source(source) as made:
            return make(stage, _exported(source, made), Path(output), proof, force=force)


def as_profile(profile: str | Mapping[str, str]) -> Profile:
    """Return a profile given as input -> shapes, or as `input=min,opt,max;other=min,opt,max`.

    Raises:
        RecipeError: it does not follow the grammar; says which input.
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
    """Whether a model is a file of ONNX, and none that PyTorch builds."""
    if isinstance(model, (Passport, Artifact)):
        return True
    return isinstance(model, (str, os.PathLike)) and os.fspath(model).endswith(".onnx")


def _opened(model: ModelFile, dims: Dims | None, profiles: Sequence[Profile]) -> Artifact:
    """Open an ONNX file; where profiles are given, they are the ranges of its dimensions."""
    if not profiles:
        return open_model_file(model, dims)
    path = model_path(model)
    artifact = open_artifact(path, as_dims(dims))
    faults = profiles_faults(artifact.inputs, profiles)
    if faults:
        raise RecipeError(f"{path}: {'; '.join(faults)}")
    ranges = hull([profile_dims(artifact.inputs, profile) for profile in profiles])
    return artifact.model_copy(update={"dims": ranges})


def _exported(model: SourceModel, source: Artifact) -> Artifact:
    """Export a model to ONNX beside its source artifact, and prove that file equal to the model."""
    made = make_file(
        ExportOnnx(),
        source,
        source.path.with_name("model.onnx"),
        requirements=Requirements(),
        gates=Gates(batch_independence=False),
        samples=Samples(source.inputs, source.dims, None),
    )
    if made.failures:
        raise StageError(f"{model.target}: its ONNX file is not equal to the model: {made.failures[0]}")
    return made.artifact
