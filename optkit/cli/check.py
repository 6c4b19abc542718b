"""`optkit check`."""

from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.output import Output, with_output
from optkit.cli.values import parse_dims


@with_output
def check(
    out: Output,
    reference: Annotated[str, typer.Argument(help="Reference: model file or file.py:build.", show_default=False)],
    candidate: Annotated[Path, typer.Argument(help="Model file to check.", show_default=False)],
    dims: options.ModelFileDims = None,
    data: options.Data = None,
    atol: options.Atol = None,
    rtol: options.Rtol = None,
    device: options.DeviceName = "cpu",
) -> None:
    """Compare two models at every corner of their dimensions, and check the batch independence of the candidate.

    Exit code 1: the models differ.

    Example: optkit check model.onnx model.int8.onnx --data samples/
    """
    from optkit.api.check import check as run

    with out.show_progress():
        found = run(reference, candidate, dims=parse_dims(dims), data=data, atol=atol, rtol=rtol, device=device)
    out.result(found)
    out.verdict(found.failures)
    raise typer.Exit(1 if found.failures else 0)
