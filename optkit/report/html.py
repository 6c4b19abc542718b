"""The report of a run: one self-contained HTML page for a screen, a phone and paper, with a light and a dark theme."""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from optkit.artifact.environment import own_code_sha256
from optkit.hashing import hash_of
from optkit.pipeline.history import HistoryEntry, add_to_history, read_history
from optkit.pipeline.records import RunRecord
from optkit.record import atomic_path
from optkit.report import numbers, pictures
from optkit.report.comparison import cells, verdict_text
from optkit.report.int8 import draw_frontier
from optkit.report.view import View, view_of

REPORT_FILE = "report.html"


def write_report(record: RunRecord, out_dir: Path, history: Sequence[HistoryEntry] = ()) -> Path:
    """Write the report of a run into its folder atomically, and return its path.

    Args:
        record: the run.
        out_dir: its folder; the commands in the report contain it.
        history: the earlier runs and this one, oldest first.

    Raises:
        OutputError: the folder cannot be written.
    """
    path, key = out_dir / REPORT_FILE, _key(record, out_dir, history)
    if _is_of(path, key):
        return path  # drawing takes most of the time of a run that reuses everything
    text = page(record, out_dir, history)
    text += _last_line(key, text)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _key(record: RunRecord, out_dir: Path, history: Sequence[HistoryEntry]) -> str:
    """Return the hash of what the report of a run shows, without when it ran and what it reused."""
    content = record.model_dump(mode="json", exclude={"created", "seconds", "bench_reused"})
    for step in (content["source"], *content["steps"]):
        step["status"] = None if step["status"] in ("built", "reused") else step["status"]
    past = [entry.model_dump(mode="json") for entry in history]
    return hash_of({"run": content, "history": past, "folder": str(out_dir), "optkit": own_code_sha256(report=True)})


def _last_line(key: str, text: str) -> str:
    return f"<!-- optkit {key} {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def _is_of(path: Path, key: str) -> bool:
    """Whether a file is the report of this key, and was not edited since."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return text.endswith(_last_line(key, text[: text.rfind("<!-- optkit ")]))


def publish(record: RunRecord, out_dir: Path, history: Path) -> Path:
    """Add a run to its history if its measurements are not in it, and write its report.

    Raises:
        OutputError: a file cannot be written.
        ArtifactError: the history cannot be read.
    """
    past = add_to_history(history, HistoryEntry.of(record)) if record.bench else read_history(history)
    return write_report(record, out_dir, past)


def page(record: RunRecord, out_dir: Path, history: Sequence[HistoryEntry] = ()) -> str:
    """Return the report as HTML. Every text of the records is escaped; only the page's own script may run."""
    import jinja2
    from markupsafe import Markup

    # Read with importlib.resources: it also works when the package is in a zip file.
    files = resources.files("optkit.report") / "page"
    script = (files / "page.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {
        "ms": lambda ms: "" if ms is None else numbers.ms_text(ms),
        "seconds": numbers.seconds_text,
        "ratio": numbers.ratio_text,
        "provider": numbers.provider_text,
        "cells": cells,
        "verdict": verdict_text,
    }
    view = view_of(record, out_dir, history)
    return environment.from_string((files / "page.html").read_text(encoding="utf-8")).render(
        record=record,
        view=view,
        pictures={name: Markup(svg) for name, svg in _pictures(record, view).items()},
        css=Markup((files / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
    )


def _pictures(record: RunRecord, view: View) -> dict[str, str]:
    """Return the pictures. A picture without data is empty, and its section is left out."""
    found = dict.fromkeys(("trade_off", "distributions", "throughput", "parts", "over_time"), "")
    found["steps"] = pictures.bars("steps", "seconds", view.times, "s", view.reused)
    bench = record.bench
    if bench and bench.measurements:
        found["distributions"] = pictures.distributions(bench.measurements, view.places)
        if len({m.batch for m in bench.measurements}) > 1:
            knees = {knee.artifact: knee.batch for knee in bench.knees}
            found["throughput"] = pictures.throughput(bench.measurements, view.places, knees)
        parts = {f"{m.artifact}, batch {m.batch}": m.parts for m in bench.measurements if m.parts}
        if parts:
            on_stream = {
                row: {"copy in": p.copy_in_ms, "compute": p.compute_ms, "copy out": p.copy_out_ms}
                for row, p in parts.items()
            }
            enqueue = ("enqueue on the host", {row: p.enqueue_ms for row, p in parts.items()})
            found["parts"] = pictures.bars("parts", "median ms", on_stream, "ms", overlay=enqueue)
    if len(view.points) > 1 and view.batch is not None:
        found["trade_off"] = pictures.trade_off(view.points, view.batch, view.quality, view.smaller_is_better)
    if len(view.history) > 1:
        found["over_time"] = pictures.over_time(view.history_lines, view.places, [run.when for run in view.history])
    found |= {
        f"frontier {search.step}": draw_frontier(search, i) for i, search in enumerate(view.searches) if search.frontier
    }
    return found
