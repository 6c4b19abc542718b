"""Options that several commands share, with the same name, type and help."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Source = Annotated[
    str,
    typer.Argument(
        help="PyTorch model: file.py (if it has one model), file.py:build, package.module:factory, a TorchScript or .pt2 file, "
        "or a Hugging Face folder.",
        show_default=False,
    ),
]
OutputFile = Annotated[
    Path,
    typer.Option("-o", "--output", help="File to write; its passport is written beside it.", show_default=False),
]
OutputFolder = Annotated[
    Path,
    typer.Option(
        "-o",
        "--output",
        help="Model repository or model store to write to; it is created if it does not exist.",
        show_default=False,
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        help='Input of the model, for example "image:float32[batch,3,224,224]"; repeat for each input.',
        show_default="derived from example inputs",
    ),
]
Example = Annotated[
    str | None,
    typer.Option(
        "--example",
        help="Function that returns example inputs, as file.py:function; used if --input is not given.",
        show_default=False,
    ),
]
Dims = Annotated[
    list[str] | None,
    typer.Option(
        "--dim",
        help="Range of a named dimension as name=min:opt:max, for example batch=1:8:64; repeat for each dimension.",
        show_default=False,
    ),
]
ModelFileDims = Annotated[
    list[str] | None,
    typer.Option(
        "--dim",
        help="Range of a named dimension as name=min:opt:max, for example batch=1:8:64; needed only if the passport has none; "
        "repeat for each dimension.",
        show_default=False,
    ),
]
OutputNames = Annotated[
    list[str] | None,
    typer.Option(
        "--output-name",
        help="Name of an output; repeat in the order of the outputs.",
        show_default="derived from the outputs of the model",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", help="File with a state dict to load into the model.", show_default=False),
]
WeightsKey = Annotated[
    str | None,
    typer.Option("--weights-key", help="Key of the state dict in the file.", show_default="the one that fits"),
]
Arguments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Argument of the factory function as name=value; repeat for each argument.", show_default=False
    ),
]
_DATA = "file.py:function, a .npz file or a folder of them, or images.yaml."
Data = Annotated[
    str | None,
    typer.Option("--data", help=f"Real samples: {_DATA}", show_default="seeded random values"),
]
VerificationData = Annotated[
    str | None,
    typer.Option("--data", help=f"Real samples for verification: {_DATA}", show_default="seeded random values"),
]
PackageData = Annotated[
    str | None,
    typer.Option("--data", help=f"Real samples for golden samples: {_DATA}", show_default="seeded random values"),
]
DataOrCalibration = Annotated[
    str | None,
    typer.Option(
        "--data",
        help=f"Real samples for verification: {_DATA}",
        show_default="samples of --calibration, else seeded random values",
    ),
]
Calibration = Annotated[
    str | None,
    typer.Option("--calibration", help=f"Real samples for the calibration of ranges: {_DATA}", show_default=False),
]
Evaluate = Annotated[
    str | None,
    typer.Option(
        "--evaluate",
        help="Function that takes predict and returns a number, larger is better, as file.py:function.",
        show_default=False,
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        help="Largest allowed drop in accuracy, in the unit of --evaluate (needs --evaluate).",
        show_default="no limit",
    ),
]
Atol = Annotated[
    float | None,
    typer.Option("--atol", help="Absolute tolerance for differences of outputs.", show_default="by precision"),
]
Rtol = Annotated[
    float | None,
    typer.Option("--rtol", help="Relative tolerance for differences of outputs.", show_default="by precision"),
]
HalfWidth = Annotated[
    float,
    typer.Option(
        "--half-width",
        help="Target half-width of the 95 % confidence interval of a speed-up, relative; measurement stops when it is reached.",
    ),
]
TimeLimitS = Annotated[float, typer.Option("--time-limit-s", help="Time in seconds after which no new block starts.")]
Device = Literal["cpu", "cuda"]
DeviceName = Annotated[
    Device, typer.Option("--device", help="Device to run on, without fallback to another device: cpu or cuda.")
]
AllowBatchDependence = Annotated[
    bool,
    typer.Option(
        "--allow-batch-dependence",
        help="Accept a model whose outputs for a sample depend on the other samples in the batch.",
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Fail if tracing turned a value of the example inputs into a constant.")
]
Repro = Annotated[
    Path | None,
    typer.Option("--repro", help="New folder for a script that repeats the export without optkit.", show_default=False),
]
MaxRegression = Annotated[
    str | None,
    typer.Option(
        "--max-regression",
        help="Largest allowed regression of latency, throughput and size, relative, for example 5%.",
        show_default="no limit",
    ),
]
AcrossMachines = Annotated[
    bool, typer.Option("--across-machines", help="Compare times although they were measured on different machines.")
]
Token = Annotated[
    str | None,
    typer.Option("--token", envvar="OPTKIT_TOKEN", help="Inference key of TorchServe.", show_default=False),
]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown, for example for a pull request comment.")]
Junit = Annotated[Path | None, typer.Option("--junit", help="JUnit file to write for CI.", show_default=False)]
Github = Annotated[bool, typer.Option("--github", help="Write annotations and the job summary for GitHub Actions.")]
History = Annotated[
    Path | None,
    typer.Option(
        "--history",
        help="History file, to which runs are appended.",
        show_default="history.jsonl in the folder of the run",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace existing output.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print only the result and errors.")]
Verbose = Annotated[
    int, typer.Option("-v", "--verbose", count=True, help="Print details; -vv also prints library logs.")
]
