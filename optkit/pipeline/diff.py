"""`optkit diff`: what changed between two builds, in words."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from optkit.artifact import Format, Passport, passport_path
from optkit.errors import ArtifactError
from optkit.pipeline.records import RunRecord, StepResult
from optkit.pipeline.run import RUN_FILE, read_run
from optkit.pytorch.source import ModelSource
from optkit.record import Document, Record
from optkit.untrusted.paths import exists, is_file


class Change(Record):
    """One change; `kind` is code, weights, data, settings, versions, machine, file or results."""

    step: str
    kind: str
    text: str


class BuildDiff(Document):
    """What changed between two builds."""

    schema_id: ClassVar[str] = "optkit/diff/1"

    old: str
    new: str
    changes: tuple[Change, ...]
    same: tuple[str, ...]  # the artifacts whose files are equal


def diff(old: Path, new: Path) -> BuildDiff:
    """Compare two artifacts, or two runs step by step.

    Raises:
        ArtifactError: one is neither, or one is an artifact and the other a run.
    """
    kinds = [exists(path / RUN_FILE) for path in (old, new)]
    if kinds[0] != kinds[1]:
        raise ArtifactError(f"{old}, {new}: one is the folder of a run, the other is not; expected two of one kind")
    if all(kinds):
        found, same = _of_runs(old, read_run(old), new, read_run(new))
    else:
        before, after = _passport(old), _passport(new)
        name = new.name
        found = list(_of_passports(name, before, after, old, new))
        same = [name] if before.artifact.sha256 == after.artifact.sha256 else []
    return BuildDiff(old=str(old), new=str(new), changes=tuple(found), same=tuple(same))


def _passport(path: Path) -> Passport:
    if not is_file(passport_path(path)):
        raise ArtifactError(
            f"{path}: has no passport beside it; expected a file that optkit made, or the folder of a run"
        )
    return Passport.read(passport_path(path))


def _of_runs(old: Path, before: RunRecord, new: Path, after: RunRecord) -> tuple[list[Change], list[str]]:
    found = [*_versions("run", before.versions, after.versions), *_machine(before, after)]
    was, now = (_steps(record) for record in (before, after))
    same: list[str] = []
    for name in dict.fromkeys((*was, *now)):
        if name not in now or name not in was:
            found.append(Change(step=name, kind="settings", text="is new" if name in now else "is no longer a step"))
            continue
        one, other = was[name], now[name]
        if one.status != other.status and "built" not in (one.status, other.status):
            reason = f": {other.reason}" if other.reason else ""
            found.append(Change(step=name, kind="results", text=f"{one.status} before, {other.status} now{reason}"))
        if one.passport and other.passport:
            if one.sha256 == other.sha256:
                same.append(name)
            paths = (old / (one.file or ""), new / (other.file or ""))
            found += _of_passports(name, one.passport, other.passport, *paths, run=True)
    if (before.winner and before.winner.artifact) != (after.winner and after.winner.artifact):
        names = [record.winner.artifact if record.winner else "none" for record in (before, after)]
        found.append(Change(step="run", kind="results", text=f"winner: {names[0]} before, {names[1]} now"))
    return found + list(_latencies(before, after)), same


def _steps(record: RunRecord) -> dict[str, StepResult]:
    return {step.name: step for step in (record.source, *record.steps)}


def _of_passports(
    name: str, before: Passport, after: Passport, old: Path, new: Path, *, run: bool = False
) -> Iterator[Change]:
    one, other = before.artifact, after.artifact
    if not run:  # a run has them once for all
        yield from _versions(name, one.built_with, other.built_with)
    if one.format is other.format is Format.PYTORCH:
        yield from _source(name, old, new)
    yield from _mapping(name, "settings", before.settings, after.settings)
    for kind in ("inputs", "outputs"):
        specs = [", ".join(map(str, getattr(artifact, kind))) for artifact in (one, other)]
        if specs[0] != specs[1]:
            yield Change(step=name, kind="settings", text=f"{kind}: {specs[0]} before, {specs[1]} now")
    dims = [{key: f"{r.min}:{r.opt}:{r.max}" for key, r in artifact.dims.items()} for artifact in (one, other)]
    yield from _mapping(name, "settings", dims[0], dims[1])
    if before.data_sha256 != after.data_sha256:
        yield Change(step=name, kind="data", text="the calibration data, or the code that makes it, is another one")
    read_before = {key: state for read in before.reads for key, state in read.items()}
    read_now = {key: state for read in after.reads for key, state in read.items()}
    for what in sorted({*read_before, *read_now}):
        if read_before.get(what) != read_now.get(what):
            yield Change(step=name, kind="data", text=_read_text(what, read_before.get(what), read_now.get(what)))
    if one.sha256 != other.sha256:
        yield Change(step=name, kind="file", text=f"SHA-256 {one.sha256[:12]} before, {other.sha256[:12]} now")
    if one.precision is not other.precision:
        yield Change(step=name, kind="results", text=f"precision: {one.precision} before, {other.precision} now")
    yield from _results(name, before, after)


def _read_text(what: str, before: str | None, now: str | None) -> str:
    kind, _, name = what.partition(" ")
    if before is None or now is None:
        return f"{kind} {name} is {'read now, and was not before' if before is None else 'no longer read'}"
    if kind == "package":
        return f"{name} {before} before, {now} now, which the code imports"
    return f"{kind} {name}, which the code reads, is another one"


def _source(name: str, old: Path, new: Path) -> Iterator[Change]:
    """Say whether the code or the weights changed, where both source files are there."""
    try:
        before, after = ModelSource.read(old), ModelSource.read(new)
    except ArtifactError:
        return
    if before.target != after.target and Path(before.target).name != Path(after.target).name:
        yield Change(step=name, kind="code", text=f"the model is {before.target} before, {after.target} now")
    elif before.content_sha256 != after.content_sha256:
        yield Change(step=name, kind="code", text="the code of the model, or its file of weights, is another one")
    if before.state_sha256 != after.state_sha256:
        yield Change(step=name, kind="weights", text="the parameters and buffers of the built model are others")
    yield from _mapping(name, "settings", before.args, after.args)


def _results(name: str, before: Passport, after: Passport) -> Iterator[Change]:
    values: dict[str, tuple[str | None, str | None]] = {
        "parity": (_parity(before), _parity(after)),
        "accuracy": (_accuracy(before), _accuracy(after)),
        "batch independence": (_independence(before), _independence(after)),
    }
    for what, (was, now) in values.items():
        if was != now:
            yield Change(
                step=name, kind="results", text=f"{what}: {was or 'not measured'} before, {now or 'not measured'} now"
            )


def _parity(passport: Passport) -> str | None:
    found = passport.parity
    return None if found is None else "passed" if found.passed else f"failed: {found.failure}"


def _accuracy(passport: Passport) -> str | None:
    return f"{passport.accuracy.value:.6g}" if passport.accuracy else None


def _independence(passport: Passport) -> str | None:
    found = passport.batch_independence
    return None if found is None else found.failure or "passed"


def _versions(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Change]:
    yield from _mapping(name, "versions", before, after)


def _mapping(name: str, kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for key in dict.fromkeys((*before, *after)):
        if before.get(key) != after.get(key):
            was, now = (_value(content.get(key)) for content in (before, after))
            yield Change(step=name, kind=kind, text=f"{key}: {was} before, {now} now")


def _value(value: object) -> str:
    return "not set" if value is None else str(value)


def _machine(before: RunRecord, after: RunRecord) -> Iterator[Change]:
    was, now = (record.machine.model_dump(mode="json") for record in (before, after))
    yield from _mapping("run", "machine", was, now)


def _medians(record: RunRecord) -> dict[tuple[str, int], float]:
    return {(m.artifact, m.batch): m.p50_ms for m in record.bench.measurements} if record.bench else {}


def _latencies(before: RunRecord, after: RunRecord) -> Iterator[Change]:
    """Yield the changes of medians; `optkit compare` says which of them are more than noise."""
    was, now = _medians(before), _medians(after)
    for artifact, batch in was:
        if (artifact, batch) in now and was[artifact, batch] != now[artifact, batch]:
            text = f"p50 at batch {batch}: {was[artifact, batch]:.4g} ms before, {now[artifact, batch]:.4g} ms now"
            yield Change(step=artifact, kind="results", text=text)
