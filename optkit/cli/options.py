"""The options that several commands share: the same name, type and help everywhere."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Output = Annotated[Path, typer.Option("-o", "--output", help="The file or folder to write.", show_default=False)]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", help='One input as "name:dtype[dim,...]"; give it once for each.', show_default=False),
]
Example = Annotated[
    str | None,
    typer.Option("--example", help="file.py:function of example inputs, in the place of --input.", show_default=False),
]
Dims = Annotated[
    list[str] | None,
    typer.Option("--dim", help="The range of a named dimension as name=min:opt:max.", show_default=False),
]
OutputNames = Annotated[
    list[str] | None, typer.Option("--output-name", help="A name for an output, in order.", show_default=False)
]
Weights = Annotated[Path | None, typer.Option("--weights", help="A state dict to load.", show_default=False)]
WeightsKey = Annotated[
    str | None,
    typer.Option(
        "--weights-key", help="Key of the state dict, where the file has several.", show_default="the one that fits"
    ),
]
Arguments = Annotated[
    list[str] | None,
    typer.Option("--set", help="An argument of the factory as name=value.", show_default=False),
]
Data = Annotated[
    str | None,
    typer.Option("--data", help="Real samples: file.py:function or a folder of .npz.", show_default=False),
]
Evaluate = Annotated[
    str | None,
    typer.Option("--evaluate", help="file.py:function of predict; a number, larger is better.", show_default=False),
]
MaxDrop = Annotated[
    float | None, typer.Option("--max-drop", help="How far accuracy may fall (needs --evaluate).", show_default=False)
]
Atol = Annotated[float | None, typer.Option("--atol", help="Absolute tolerance.", show_default="by precision")]
Rtol = Annotated[float | None, typer.Option("--rtol", help="Relative tolerance.", show_default="by precision")]
Device = Literal["cpu", "cuda"]
DeviceName = Annotated[Device, typer.Option("--device", help="Never another one in its place.")]
AllowBatchDependence = Annotated[
    bool,
    typer.Option(
        "--allow-batch-dependence", help="Allow a model whose answers depend on the other samples of a batch."
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse a trace that turned a value of the example into a constant.")
]
Repro = Annotated[
    Path | None,
    typer.Option(
        "--repro", help="A new folder for a script that repeats the export without optkit.", show_default=False
    ),
]
MaxRegression = Annotated[
    str | None,
    typer.Option(
        "--max-regression", help="How much worse latency, throughput and size may become, as 5%.", show_default=False
    ),
]
AcrossMachines = Annotated[
    bool, typer.Option("--across-machines", help="Compare times though they were measured on different machines.")
]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown, as for a comment on a pull request.")]
Junit = Annotated[Path | None, typer.Option("--junit", help="Also write a JUnit file for CI.", show_default=False)]
Github = Annotated[
    bool, typer.Option("--github", help="Also write annotations and the job's summary for GitHub Actions.")
]
History = Annotated[
    Path | None,
    typer.Option("--history", help="The file that runs are added to.", show_default="history.jsonl in the folder"),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print only errors besides the answer.")]
Verbose = Annotated[int, typer.Option("-v", "--verbose", count=True, help="Print details; -vv also library logs.")]
