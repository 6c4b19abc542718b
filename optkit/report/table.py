"""Records as tables for a terminal of 80 columns."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from optkit.artifact.findings import Measurement, Parity, SpeedUp
from optkit.report.numbers import ms_text, ratio_text, size_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from optkit.benchmark.bench_record import BenchRecord
    from optkit.pipeline.records import RunRecord, StepResult


def run_tables(record: "RunRecord") -> list[Table]:
    """Return the tables at the end of a run: every artifact at one batch size, and the speed-up at all of them."""
    bench = record.bench
    batches = sorted({m.batch for m in bench.measurements}) if bench else []
    shown = batches[len(batches) // 2] if batches else None
    title = f"{record.recipe}, at batch {shown}" if shown else record.recipe
    table = plain_table(
        title, "artifact", "type", ">size", "parity", ">accuracy", ">p50 ms", ">p99 ms", ">/s", ">faster"
    )
    for step in (record.source, *record.steps):
        name = Text(step.name, "bold green" if record.winner and step.name == record.winner.artifact else "")
        if not step.made:
            table.add_row(name, "", "", Text(step.status, "yellow" if step.status == "skipped" else "red"))
            continue
        table.add_row(
            name,
            str(step.precision),
            size_text(step.size_bytes or 0) if step.parent else "",
            _verdict(step),
            f"{step.accuracy.value:.4f}" if step.accuracy else "",
            *_latency(_find(bench, step.name, shown)),
            _ratio(_speed_up(bench, step.name, shown)),
        )
    return [table, *(_by_batch(bench) if bench and len(batches) > 1 else [])]


def parity_table(parity: Parity) -> Table:
    """Return a row for every output at every point, with differences and verdict."""
    table = plain_table(
        f"{parity.reference} and {parity.candidate}",
        "output",
        "at",
        ">max abs",
        ">max rel",
        ">cosine",
        ">SQNR dB",
        "verdict",
    )
    for found in parity.outputs:
        table.add_row(
            found.output,
            " ".join(f"{name}={size}" for name, size in found.sizes.items()),
            *("" if value is None else f"{value:.3g}" for value in (found.max_abs, found.max_rel)),
            "" if found.cosine is None else f"{found.cosine:.6f}",
            "" if found.sqnr_db is None else f"{found.sqnr_db:.1f}",
            Text(found.failure, "red") if found.failure else Text("equal", "green"),
        )
    return table


class PlainTable(Table):
    """A table that shows its texts as they are: in names such as `x[bold]` or `a:100:b`, nothing is markup or emoji."""

    def add_row(self, *cells: "RenderableType | None", **options: Any) -> None:
        """Add a row."""
        super().add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells), **options)


def plain_table(title: str, *columns: str) -> Table:
    """Return an empty table in the common style; a column whose title starts with > is aligned right, for numbers."""
    table = PlainTable(title=Text(title, "bold"), title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    for column in columns:
        table.add_column(Text(column.removeprefix(">")), justify="right" if column.startswith(">") else "left")
    return table


def _by_batch(bench: "BenchRecord") -> list[Table]:
    batches = sorted({m.batch for m in bench.measurements})
    names = list(dict.fromkeys(m.artifact for m in bench.measurements))
    reference = bench.speed_ups[0].reference if bench.speed_ups else names[0]
    table = plain_table(f"speed-up over {reference} (95 % interval)", "artifact", *(f">batch {b}" for b in batches))
    for name in names:
        if name != reference:
            table.add_row(name, *(_ranged(_speed_up(bench, name, b)) for b in batches))
    return [table]


def _verdict(step: "StepResult") -> Text:
    if step.failures:
        return Text(step.failures[0].partition(":")[0], "red")
    if step.unproven:
        return Text("not tested", "yellow")
    if step.over_budget:
        return Text(f"over {step.over_budget[0].split()[0].rstrip(':')}", "yellow")
    if step.parity is None:
        return Text("reference")
    return Text(f"ok {step.parity.max_abs or 0:.0e}" if step.parity.max_abs else "ok equal", "green")


def _latency(measured: Measurement | None) -> tuple[str, str, str]:
    if measured is None:
        return "", "", ""
    p99 = ms_text(measured.p99_ms) if measured.p99_ms is not None else ""
    return ms_text(measured.p50_ms), p99, f"{measured.samples_per_s:,.0f}"


def _ratio(found: SpeedUp | None) -> str:
    return ratio_text(found.ratio, None, None, busy=found.busy) if found else ""


def _ranged(found: SpeedUp | None) -> str:
    return ratio_text(found.ratio, found.low, found.high, busy=found.busy) if found else ""


def _find(bench: "BenchRecord | None", name: str, batch: int | None) -> Measurement | None:
    measurements: Sequence[Measurement] = bench.measurements if bench else ()
    return next((m for m in measurements if m.artifact == name and m.batch == batch), None)


def _speed_up(bench: "BenchRecord | None", name: str, batch: int | None) -> SpeedUp | None:
    found: Sequence[SpeedUp] = bench.speed_ups if bench else ()
    return next((s for s in found if s.candidate == name and s.batch == batch), None)
