"""The content of a report, from the records of a run: rows, points, cells and sentences, without markup or drawing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optkit.artifact.findings import Measurement, SpeedUp
from optkit.pipeline.history import HistoryEntry
from optkit.pipeline.records import RunRecord, StepResult
from optkit.report.heat import Heat, heat_of
from optkit.report.int8 import Calibrated, Search, calibrations, searches
from optkit.report.numbers import ms_text, ratio_text, size_text
from optkit.report.pictures import Point, dominated
from optkit.report.provenance import PastRun, commands, facts_of, past_runs
from optkit.report.verdict import busy_machine, conditions, parts_on_cpu, verdict_sentence

NO_ERROR = 1e-12  # drawn for an error of 0, because the axis is logarithmic


@dataclass(frozen=True)
class Figure:
    """One large number under the verdict."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True)
class Row:
    """One variant in the first table."""

    step: StepResult
    winner: bool
    verdict: str
    tone: str
    size: str
    accuracy: str
    p50: str
    tail: str
    rate: str
    speed_up: str


@dataclass(frozen=True)
class View:
    """Everything that the page shows in addition to the record."""

    verdict: str
    conditions: str
    busy: tuple[str, ...]
    figures: tuple[Figure, ...]
    sections: tuple[tuple[str, str], ...]  # id -> title, in order
    places: dict[str, int]  # variant -> its colour
    batch: int | None  # the batch size of tables and pictures that show only one
    rows: tuple[Row, ...]
    points: tuple[Point, ...]
    quality: str
    smaller_is_better: bool
    quality_note: str
    times: dict[str, dict[str, float]]
    reused: tuple[str, ...]
    on_gpu: tuple[Measurement, ...]
    on_cpu: tuple[str, ...]  # parts that ran on the CPU although the device was a GPU
    heat: Heat | None
    compared: tuple[StepResult, ...]
    searches: tuple[Search, ...]
    calibrations: tuple[Calibrated, ...]
    notes: tuple[StepResult, ...]
    not_run: tuple[tuple[str, str, str], ...]  # name, status, reason
    history: tuple[PastRun, ...]
    history_names: tuple[str, ...]
    history_note: str
    commands: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, str], ...]

    @property
    def history_lines(self) -> dict[str, list[tuple[int, float]]]:
        """The index of each run and its latency in ms, by variant."""
        lines = {
            name: [(x, ms) for x, run in enumerate(self.history) if (ms := run.values[i]) is not None]
            for i, name in enumerate(self.history_names)
        }
        return {name: found for name, found in lines.items() if found}


def view_of(record: RunRecord, out_dir: Path, history: Sequence[HistoryEntry]) -> View:
    """Return the content of the report of a run."""
    steps = (record.source, *record.steps)
    places = {step.name: i for i, step in enumerate(steps)}
    batch = shown_batch(record)
    rows = tuple(row_of(record, step, batch) for step in steps)
    points, quality, smaller = _points(record, steps, places, batch)
    heat = heat_of(steps)
    searched, calibrated = searches(steps), calibrations(steps)
    past, names, history_note = past_runs(record, history, batch)
    notes = tuple(step for step in steps if step.notes)
    not_run = tuple(_not_run(record, steps))
    titles = {
        "variants": "Variants",
        "baseline": "Baseline" if record.comparison else "",
        "trade-off": "Trade-off" if len(points) > 1 else "",
        "latency": "Latency" if record.bench and record.bench.measurements else "",
        "throughput": "Throughput" if record.bench and len({m.batch for m in record.bench.measurements}) > 1 else "",
        "time": "Time",
        "parity": "Parity" if heat else "",
        "layers": "Layers" if searched else "",
        "calibration": "Calibration" if calibrated else "",
        "notes": "Notes" if notes else "",
        "not-run": "Not run" if not_run else "",
        "history": "Over time" if len(past) > 1 else "",
        "reproduce": "Reproduce",
        "provenance": "Provenance",
    }
    return View(
        verdict=verdict_sentence(record),
        conditions=conditions(record),
        busy=tuple(busy_machine(record.bench)) if record.bench else (),
        figures=tuple(_figures(record, batch)),
        sections=tuple((key, title) for key, title in titles.items() if title),
        places=places,
        batch=batch,
        rows=rows,
        points=tuple(points),
        quality=quality,
        smaller_is_better=smaller,
        quality_note=_quality_note(record, smaller),
        times=_times(record, steps),
        reused=tuple(step.name for step in steps if step.status == "reused"),
        on_gpu=tuple(m for m in (record.bench.measurements if record.bench else ()) if m.gpu or m.parts),
        on_cpu=tuple(parts_on_cpu(record.bench)) if record.bench else (),
        heat=heat,
        compared=tuple(step for step in steps if step.parity),
        searches=searched,
        calibrations=calibrated,
        notes=notes,
        not_run=not_run,
        history=past,
        history_names=names,
        history_note=history_note,
        commands=tuple(commands(record, out_dir, batch)),
        facts=tuple(facts_of(record, out_dir)),
    )


def shown_batch(record: RunRecord) -> int | None:
    """Return the batch size for tables and pictures that show only one: the middle one."""
    batches = sorted({m.batch for m in record.bench.measurements}) if record.bench else []
    return batches[len(batches) // 2] if batches else None


def find(record: RunRecord, name: str, batch: int | None) -> Measurement | None:
    """Return the measurement of a variant at a batch size."""
    measured = record.bench.measurements if record.bench else ()
    return next((m for m in measured if m.artifact == name and m.batch == batch), None)


def find_speed_up(record: RunRecord, name: str, batch: int | None) -> SpeedUp | None:
    """Return the speed-up of a variant at a batch size."""
    found = record.bench.speed_ups if record.bench else ()
    return next((s for s in found if s.candidate == name and s.batch == batch), None)


def _figures(record: RunRecord, batch: int | None) -> list[Figure]:
    best = next((s for s in record.steps if record.winner and s.name == record.winner.artifact), None)
    if best is None:
        return []
    found = []
    measured, speed_up = find(record, best.name, batch), find_speed_up(record, best.name, batch)
    if speed_up:
        ends = speed_up.low is not None and speed_up.high is not None
        detail = f"95 %: {speed_up.low:.2f} to {speed_up.high:.2f}" if ends else "too few blocks for an interval"
        star = "*" if speed_up.busy else ""
        found.append(Figure(f"speed-up at batch {batch}", f"{speed_up.ratio:.2f}x{star}", detail))
    if measured:
        name, value = measured.tail if measured.tail[0] != "p50" else ("mean", measured.mean_ms)
        found.append(
            Figure(f"median latency at batch {batch}", f"{ms_text(measured.p50_ms)} ms", f"{name} {ms_text(value)} ms")
        )
        found.append(Figure("throughput", f"{measured.samples_per_s:,.0f}/s", f"one caller, batch {batch}"))
    if best.size_bytes is not None:
        others = [s for s in record.steps if s.made and s.precision == "fp32" and s.size_bytes and s.name != best.name]
        detail = f"{best.size_bytes / (others[-1].size_bytes or 1):.0%} of {others[-1].name}" if others else ""
        found.append(Figure("size", size_text(best.size_bytes), detail))
    if best.accuracy and record.source.accuracy:
        found.append(Figure("accuracy", f"{best.accuracy.value:.4f}", f"source {record.source.accuracy.value:.4f}"))
    return found


def row_of(record: RunRecord, step: StepResult, batch: int | None) -> Row:
    """Return the row of one variant at a batch size."""
    measured, speed_up = find(record, step.name, batch), find_speed_up(record, step.name, batch)
    verdict, tone = _verdict(step)
    tail = ""
    if measured and measured.tail[0] != "p50":
        tail = f"{measured.tail[0]} {ms_text(measured.tail[1])}"
    return Row(
        step=step,
        winner=record.winner is not None and record.winner.artifact == step.name,
        verdict=verdict,
        tone=tone,
        size=size_text(step.size_bytes) if step.size_bytes is not None and step.parent else "",
        accuracy=f"{step.accuracy.value:.4f}" if step.accuracy else "",
        p50=ms_text(measured.p50_ms) if measured else "",
        tail=tail,
        rate=f"{measured.samples_per_s:,.0f}" if measured else "",
        speed_up=ratio_text(speed_up.ratio, speed_up.low, speed_up.high, busy=speed_up.busy) if speed_up else "",
    )


def _verdict(step: StepResult) -> tuple[str, str]:
    if not step.made:
        return step.status, "bad" if step.status == "failed" else "warn"
    if step.failures:
        return f"✗ {step.failures[0].partition(':')[0]}", "bad"
    if step.unproven:
        return "not tested", "warn"
    if step.over_budget:
        return f"over budget: {step.over_budget[0].partition(':')[0]}", "warn"
    return ("reference", "") if step.parity is None else ("✓ equal", "good")


def _points(
    record: RunRecord, steps: Sequence[StepResult], places: dict[str, int], batch: int | None
) -> tuple[list[Point], str, bool]:
    """Return the points of the trade-off; the quality is the accuracy if the variants differ in it, otherwise the error."""
    measured = {step.name: found for step in steps if step.made and (found := find(record, step.name, batch))}
    accuracies = {s.name: s.accuracy.value for s in steps if s.accuracy and s.name in measured}
    smaller = len(set(accuracies.values())) < 2 or len(accuracies) < len(measured)
    quality: dict[str, float] = {}
    for step in steps:
        if step.name in measured and (not smaller or step.parity is None):
            quality[step.name] = NO_ERROR if smaller else accuracies[step.name]
        elif step.name in measured and step.parity and step.parity.cosine is not None:
            quality[step.name] = max(1 - step.parity.cosine, NO_ERROR)
    # Compare accuracies with the 4 digits that are shown: a difference in the fifth digit does not count.
    costs = {name: (measured[name].p50_ms, value if smaller else -round(value, 4)) for name, value in quality.items()}
    pale = dominated(costs)
    points = [
        Point(
            name=step.name,
            place=places[step.name],
            latency_ms=measured[step.name].p50_ms,
            quality=quality[step.name],
            size_bytes=step.size_bytes if step.parent else None,
            dominated=step.name in pale,
        )
        for step in steps
        if step.name in quality
    ]
    return points, "error (1 - cosine to the source)" if smaller else "accuracy", smaller


def _quality_note(record: RunRecord, smaller: bool) -> str:
    if not smaller:
        return "Accuracy from your evaluation function, against the median latency."
    if record.source.accuracy:
        return (
            "The accuracy is the same for all variants or not known for some, so the picture shows the error of the outputs against the "
            "median latency. An error of 0 is drawn at 1e-12."
        )
    return (
        "This recipe has no evaluation function, so the picture shows the error of the outputs against the median latency. An error of 0 "
        "is drawn at 1e-12."
    )


def _times(record: RunRecord, steps: Sequence[StepResult]) -> dict[str, dict[str, float]]:
    times = {step.name: {"seconds": step.seconds} for step in steps if step.made and step.seconds is not None}
    spent = sum(step.seconds or 0 for step in steps if step.status == "built")
    return times | {"checks, benchmark, packages": {"seconds": max(record.seconds - spent, 0.0)}}


def _not_run(record: RunRecord, steps: Sequence[StepResult]) -> list[tuple[str, str, str]]:
    found = [(step.name, str(step.status), step.reason or "") for step in steps if not step.made]
    found += [(step.name, "failed", text) for step in steps for text in step.failures]
    found += [(step.name, "not tested", f"parity and accuracy: {step.unproven}") for step in steps if step.unproven]
    found += [(step.name, "over budget", text) for step in steps for text in step.over_budget]
    if record.bench:
        found += [(missing.artifact, "not measured", missing.reason) for missing in record.bench.not_run]
        if record.bench.interrupted:
            found.append(("benchmark", "interrupted", "the numbers are those of the complete blocks"))
    if record.bench_error:
        found.append(("benchmark", "failed", record.bench_error))
    return found
