"""`optkit report`."""

from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.output import Output


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of the run.", show_default=False)],
    history: options.History = None,
    markdown: options.Markdown = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the HTML report of a run again from its records, or print it as Markdown.

    Example: optkit report build/digits --markdown
    """
    from optkit.pipeline.history import HISTORY_FILE, read_history
    from optkit.pipeline.run import read_run
    from optkit.report.html import write_report
    from optkit.report.markdown import run_markdown
    from optkit.system.lock import locked_folder

    out = Output(as_json=as_json, quiet=quiet)
    record = read_run(folder)
    if markdown or as_json:
        out.result(record, run_markdown(record))
        return
    with locked_folder(folder):
        path = write_report(record, folder, read_history(history or folder / HISTORY_FILE))
    out.result(record, str(path))
