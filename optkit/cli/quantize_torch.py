"""`optkit quantize-torch`."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.making import Proof, Source, SourceModel, make_and_show
from optkit.cli.output import Output
from optkit.cli.values import settings
from optkit.errors import RecipeError
from optkit.untrusted.quoting import shell_line


def quantize_torch(
    source: Source,
    output: options.Output,
    mode: Annotated[
        str, typer.Option(help="auto (static with calibration data, else dynamic), dynamic or static.")
    ] = "auto",
    calibration: Annotated[
        str | None, typer.Option(help="Real samples: file.py:function or a folder of .npz.", show_default=False)
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, x86, fbgemm, onednn, or qnnpack for Arm.")] = "auto",
    per_channel: Annotated[bool, typer.Option(help="A scale for each channel of a weight.")] = True,
    reduce_range: Annotated[
        bool | None, typer.Option(help="7-bit activations, for x86 without VNNI.", show_default="by processor")
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
    may_mix: options.MayMix = False,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Quantize a PyTorch model to INT8 TorchScript for TorchServe and Triton, and prove it against the model.

    Example: optkit quantize-torch recipes/digits.py:build -o digits.int8.pt --calibration recipes/digits.py:calibration
    --input "image:float32[batch,1,8,8]" --dim batch=1:8:64
    """
    from optkit.api.make import check_output
    from optkit.data import absolute_data
    from optkit.stages import QuantizeTorch

    out = Output(as_json=as_json, quiet=quiet, verbose=verbose)
    chosen = mode if mode != "auto" else "static" if calibration else "dynamic"
    if chosen == "dynamic" and calibration:
        raise RecipeError("--calibration is for --mode static; dynamic quantization finds its ranges at each run")
    samples = absolute_data(calibration, Path()) if calibration else None
    common = {"backend": backend, "per_channel": per_channel, "reduce_range": reduce_range}
    stage = settings(QuantizeTorch, mode=chosen, calibration=samples, **common)
    model = SourceModel(source, inputs, example, dims, output_names, weights, arguments)
    proof = Proof(data=data or calibration, evaluation=evaluation, max_drop=max_drop, may_mix=may_mix)
    check_output(output, force)
    hints = (
        shell_line("optkit", "bench", output),
        shell_line("optkit", "package", "torchserve", output, "-o", "model_store"),
    )
    with tempfile.TemporaryDirectory(prefix="optkit-source-") as folder:
        with out.working():
            made = model.make(Path(folder))
        make_and_show(out, stage, made, output, proof, force, hints)
