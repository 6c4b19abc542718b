"""The provenance of a run: the commands that reproduce it, its facts, and the earlier runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optkit.pipeline.history import HistoryEntry, machine_name
from optkit.pipeline.records import RunRecord
from optkit.untrusted.quoting import shell_line


@dataclass(frozen=True)
class PastRun:
    """One run of the history: the median latency of each variant, or None if it was not measured."""

    when: str
    values: tuple[float | None, ...]


def past_runs(
    record: RunRecord, history: Sequence[HistoryEntry], batch: int | None
) -> tuple[tuple[PastRun, ...], tuple[str, ...], str]:
    """Return the past runs of this recipe on this machine; latencies of other machines are not comparable."""
    mine = [e for e in history if e.recipe == record.recipe]
    here = [e for e in mine if e.machine == machine_name(record.machine)]
    names = tuple(dict.fromkeys(v.name for e in here for v in e.variants))
    past = []
    for entry in here:
        latency = {v.name: v.p50_ms.get(batch) for v in entry.variants if batch is not None}
        when = f"{entry.created[5:16].replace('T', ' ')}" + (f" {entry.commit[:7]}" if entry.commit else "")
        past.append(PastRun(when, tuple(latency.get(name) for name in names)))
    note = f"Median latency at batch {batch} in {len(here)} runs of this recipe on this machine."
    if len(mine) > len(here):
        note += f" {len(mine) - len(here)} runs in the history were made on other machines and are not drawn."
    return tuple(past), names, note


def commands(record: RunRecord, out_dir: Path, batch: int | None) -> list[tuple[str, str]]:
    """Return for each variant the commands that make and measure it."""
    if record.origin is None:
        return []
    overrides = [part for key, value in record.origin.overrides.items() for part in ("--set", f"{key}={value}")]
    found = []
    for step in record.steps:
        if not step.made or step.file is None:
            continue
        make = ["optkit", "run", record.origin.recipe, "-o", out_dir, *overrides, "--step", step.name]
        commands = shell_line(*make)
        if batch is not None:
            commands += "\n" + shell_line("optkit", "bench", out_dir / step.file, "--batch", batch)
        found.append((step.name, commands))
    return found


def facts_of(record: RunRecord, out_dir: Path) -> list[tuple[str, str]]:
    """Return the facts that the numbers depend on, as name and value."""
    machine = record.machine
    memory = f", {machine.memory_gib} GiB" if machine.memory_gib else ""
    facts = [
        ("run", f"{out_dir}, {record.created} UTC, took {record.seconds:.1f} s"),
        ("recipe", record.origin.recipe if record.origin else record.recipe),
        ("inputs", "; ".join(record.contract.inputs)),
        ("outputs", "; ".join(record.contract.outputs)),
        (
            "dimensions",
            "; ".join(f"{name} {r.min}:{r.opt}:{r.max}" for name, r in record.contract.dims.items()) or "fixed",
        ),
        ("processor", f"{machine.cpu}, {machine.cores} cores{memory}"),
        ("GPU", machine.gpu or "none"),
        ("system", f"{machine.system}, Python {machine.python}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
    ]
    if record.bench and record.bench.load_before is not None:
        facts.append(("load average at the start", f"{record.bench.load_before:.1f} on {machine.cores} cores"))
    facts += [("packaged", f"{packaged.target}: {packaged.path}") for packaged in record.packaged]
    return facts
