"""`optkit build-engine`."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optkit.cli import options
from optkit.cli.making import Proof, make_and_show
from optkit.cli.output import Output
from optkit.cli.values import open_file, pairs, parse_args, parse_dims, parse_inputs, settings
from optkit.errors import RecipeError
from optkit.untrusted.quoting import shell_line

if TYPE_CHECKING:
    from optkit.artifact import Artifact
    from optkit.artifact.engine import Profile


def build_engine(
    model: Annotated[
        str,
        typer.Argument(help="An ONNX model, or a model source as `optkit export onnx` takes it.", show_default=False),
    ],
    output: options.Output,
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32, fp16, int8 or int8+fp16; made in the ONNX file first.", show_default="that of the file"
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(help="Real samples for int8: file.py:function or a folder of .npz.", show_default=False),
    ] = None,
    profiles: Annotated[
        list[str] | None,
        typer.Option(
            "--profile",
            help='Shapes as "input=min,opt,max;other=min,opt,max", each as 1x3x224x224; once for each profile.',
            show_default="the declared ranges",
        ),
    ] = None,
    runtime: Annotated[str, typer.Option(help="auto, tensorrt (on a GPU) or tensorrt-rtx (ahead of time).")] = "auto",
    gpu: Annotated[
        str | None,
        typer.Option(help="What to build for, as sm86,sm89 or T4,A10,RTX 4090.", show_default="what the runtime takes"),
    ] = None,
    python: Annotated[
        Path | None,
        typer.Option("--tensorrt-python", help="The interpreter that has TensorRT.", show_default="this one"),
    ] = None,
    workspace_mib: Annotated[int | None, typer.Option(help="The most memory of one layer.", show_default="all")] = None,
    optimization_level: Annotated[int | None, typer.Option(help="0 (fast build) to 5.", show_default="3")] = None,
    tf32: Annotated[
        bool, typer.Option("--tf32", help="FP32 products may be computed in TF32: 10 bits, on sm80 and later.")
    ] = False,
    timing_cache: Annotated[
        str, typer.Option(help="auto (kept for each GPU, release and driver), none, or a file.")
    ] = "auto",
    version_compatible: Annotated[bool, typer.Option("--version-compatible", help="Also for later releases.")] = False,
    hardware_compatible: Annotated[
        str | None,
        typer.Option(help="Also for other GPUs: ampere-plus or same-compute-capability.", show_default=False),
    ] = None,
    refit: Annotated[bool, typer.Option("--refit", help="Weights can be replaced later.")] = False,
    strip: Annotated[bool, typer.Option("--strip", help="Leave out weights that are refitted.")] = False,
    require: Annotated[
        list[str] | None,
        typer.Option(help="The share of layers that must compute so, as fp16=0.9 (needs a GPU).", show_default=False),
    ] = None,
    inputs: options.Inputs = None,
    example: options.Example = None,
    dims: options.Dims = None,
    output_names: options.OutputNames = None,
    weights: options.Weights = None,
    arguments: options.Arguments = None,
    data: options.Data = None,
    evaluation: options.Evaluate = None,
    max_drop: options.MaxDrop = None,
    atol: options.Atol = None,
    rtol: options.Rtol = None,
    may_mix: options.MayMix = False,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Build a TensorRT engine, and prove it where a GPU is; without one the passport says what is not proven.

    Example: optkit build-engine model.onnx -o model.plan --dim batch=1:8:64 --precision fp16 --runtime tensorrt-rtx
    """
    from optkit.api.make import check_output
    from optkit.data import absolute_data
    from optkit.stages import BuildTensorRt

    out = Output(as_json=as_json, quiet=quiet, verbose=verbose)
    stage = settings(
        BuildTensorRt,
        runtime=runtime,
        python=str(python.absolute()) if python else None,
        precision=precision,
        calibration=absolute_data(calibration, Path()) if calibration else None,
        profiles=tuple(parse_profile(text) for text in profiles or ()),
        gpu=tuple(part.strip() for part in gpu.split(",")) if gpu else (),
        workspace_mib=workspace_mib,
        optimization_level=optimization_level,
        tf32=tf32,
        timing_cache=timing_cache,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        refit=refit,
        strip=strip,
        require=pairs("--require", require),
    )
    check_output(output, force)
    proof = Proof(
        data=data or calibration, evaluation=evaluation, max_drop=max_drop, atol=atol, rtol=rtol, may_mix=may_mix
    )
    options_of_source = {
        "--input": inputs,
        "--example": example,
        "--weights": weights,
        "--set": arguments,
        "--output-name": output_names,
    }
    with tempfile.TemporaryDirectory(prefix="optkit-source-") as folder, out.working():
        if model.endswith(".onnx"):
            given = [name for name, value in options_of_source.items() if value]
            if given:
                raise RecipeError(f"{given[0]}: is for a model source, and {model} is an ONNX file. Leave it out.")
            source = _opened(Path(model), dims, stage.profiles)
        else:
            source = _exported(model, Path(folder), inputs, example, dims, output_names, weights, arguments)
        make_and_show(
            out,
            stage,
            source,
            output,
            proof,
            force,
            (shell_line("optkit", "inspect", output), shell_line("optkit", "doctor", output)),
        )


def parse_profile(text: str) -> "Profile":
    """Read one --profile.

    Raises:
        RecipeError: it does not follow the grammar; says which input.
    """
    from pydantic import ValidationError

    from optkit.artifact.engine import ShapeRange
    from optkit.record import faults

    found: dict[str, Any] = {}
    for name, shapes in pairs("--profile", [part.strip() for part in text.split(";")], last=True).items():
        try:
            found[name] = ShapeRange.parse(shapes)
        except ValidationError as e:
            raise RecipeError(f"--profile {name}: {'; '.join(faults(e)).removeprefix('document: ')}") from e
        except ValueError as e:
            raise RecipeError(f"--profile {name}: {e}") from e
    return found


def _opened(path: Path, dims: list[str] | None, profiles: "Sequence[Profile]") -> "Artifact":
    """Open an ONNX file; where profiles are given, they are the ranges of its dimensions."""
    from optkit.artifact.engine import hull, profile_dims, profiles_faults
    from optkit.pytorch.source import open_artifact

    if not profiles:
        return open_file(path, dims)
    artifact = open_artifact(path, parse_dims(dims))
    faults = profiles_faults(artifact.inputs, profiles)
    if faults:
        raise RecipeError(f"{path}: {'; '.join(faults)}")
    ranges = hull([profile_dims(artifact.inputs, profile) for profile in profiles])
    return artifact.model_copy(update={"dims": ranges})


def _exported(
    target: str,
    folder: Path,
    inputs: list[str] | None,
    example: str | None,
    dims: list[str] | None,
    output_names: list[str] | None,
    weights: Path | None,
    arguments: list[str] | None,
) -> "Artifact":
    """Export a model source to ONNX, and prove that file equal to the model."""
    from optkit.api.make import make_file
    from optkit.artifact.gates import Gates
    from optkit.check import Requirements
    from optkit.data import Samples
    from optkit.errors import StageError
    from optkit.pytorch.source import make_source
    from optkit.stages import ExportOnnx
    from optkit.user_code import absolute_target

    source = make_source(
        target,
        folder,
        parse_inputs(inputs),
        parse_dims(dims),
        weights=weights,
        args=parse_args(arguments),
        outputs=tuple(output_names) if output_names else None,
        example=absolute_target(example, Path()) if example else None,
    )
    samples = Samples(source.inputs, source.dims, None)
    made = make_file(
        ExportOnnx(),
        source,
        folder / "model.onnx",
        asked=Requirements(),
        gates=Gates(batch_independence=False),
        samples=samples,
    )
    if made.failures:
        raise StageError(f"{target}: its ONNX file is not equal to the model: {made.failures[0]}")
    return made.passport.artifact
