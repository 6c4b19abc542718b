"""`optkit check`."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.output import Output
from optkit.cli.values import open_file, parse_device, samples_of, tolerance


def check(
    reference: Annotated[
        str, typer.Argument(help="The model that is right: a file, or file.py:build.", show_default=False)
    ],
    candidate: Annotated[Path, typer.Argument(help="The model to prove.", show_default=False)],
    dims: options.Dims = None,
    data: options.Data = None,
    atol: options.Atol = None,
    rtol: options.Rtol = None,
    device: options.DeviceName = "cpu",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Compare two models at every corner of their dimensions; exit with 1 when they differ.

    Example: optkit check model.onnx model.int8.onnx --data samples/
    """
    from optkit.api.check import check_pair, open_reference
    from optkit.report import parity_table

    out = Output(as_json=as_json, quiet=quiet, verbose=verbose)
    proven = open_file(candidate, dims)
    with tempfile.TemporaryDirectory(prefix="optkit-source-") as folder, out.working():
        right = (
            open_file(Path(reference), dims)
            if ":" not in reference
            else open_reference(reference, proven, Path(folder))
        )
        found = check_pair(right, proven, samples_of(proven, data), tolerance(atol, rtol), parse_device(device))
    out.answer(found, parity_table(found.parity))
    out.verdict(found.failures)
    raise typer.Exit(1 if found.failures else 0)
