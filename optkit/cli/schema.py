"""`optkit schema`."""

import json
from typing import Annotated

import typer

from optkit.errors import RecipeError


def schema(
    name: Annotated[
        str,
        typer.Argument(help="Document: run, bench, comparison, ab, history, loadtest or passport.", show_default=False),
    ],
) -> None:
    """Print the JSON schema of a file that optkit writes; the "schema" key of the file names the version.

    Example: optkit schema run
    """
    from optkit.api.ab import AbRecord
    from optkit.artifact import Passport
    from optkit.benchmark.bench_record import BenchRecord
    from optkit.benchmark.changes import Comparison
    from optkit.loadtest import LoadRecord
    from optkit.pipeline.history import HistoryEntry
    from optkit.pipeline.records import RunRecord
    from optkit.record import Document

    documents: dict[str, type[Document]] = {
        "run": RunRecord,
        "bench": BenchRecord,
        "comparison": Comparison,
        "ab": AbRecord,
        "history": HistoryEntry,
        "loadtest": LoadRecord,
        "passport": Passport,
    }
    if name not in documents:
        raise RecipeError(f"{name}: unknown document; expected one of {', '.join(documents)}")
    typer.echo(json.dumps(documents[name].json_schema(), indent=2))
