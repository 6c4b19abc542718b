"""Records as lines of text for a terminal, and suggestions for the next command."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from optkit.artifact import Artifact, Passport
from optkit.artifact.engine import TITLES, sm_text
from optkit.artifact.platforms import runs_on
from optkit.errors import ArtifactError
from optkit.report.numbers import size_text
from optkit.report.table import plain_table
from optkit.report.verdict import busy_machine, included, parts_on_cpu
from optkit.untrusted.quoting import shell_line

if TYPE_CHECKING:
    from optkit.api.inspect import Examination, Inspection, TensorRtHere
    from optkit.api.package import PackageRecord
    from optkit.pipeline.plan import Plan
    from optkit.pipeline.records import RunRecord


def plan_table(plan: "Plan") -> Table:
    """Return the steps of a plan in their order."""
    table = plain_table(f"{plan.recipe.name}: plan", "step", "stage", "input", "output", "note")
    for step in plan.steps:
        note = f"skipped: {step.skip}" if step.skip else "optional" if step.stage.optional else ""
        table.add_row(step.name, step.stage.stage, step.parent, str(step.stage.produces), note)
    return table


def run_summary(record: "RunRecord", out_dir: Path | None = None) -> str:
    """Return the summary of a run: reused artifacts, the winner and why it won, packages, and the paths of its files."""
    lines = []
    made = [step for step in (record.source, *record.steps) if step.made]
    reused = sum(step.status == "reused" for step in made)
    if reused:
        lines.append(
            f"reused: {reused} of {len(made)} artifacts" + ("; nothing was rebuilt" if reused == len(made) else "")
        )
        if record.bench_reused:
            lines.append("reused: the measurements of the same artifacts on this machine")
    lines += [f"{step.status}: {step.name}: {step.reason}" for step in record.steps if not step.made]
    if record.bench:
        first = record.bench.measurements[0]
        where = record.machine.cpu if first.device == "cpu" else record.machine.gpu
        lines.append(f"measured: {where}, {included(first)}, after warmup")
        lines += parts_on_cpu(record.bench)
        lines += [f"not run: {missing.artifact}: {missing.reason}" for missing in record.bench.not_run]
        lines += busy_machine(record.bench)
    if record.winner:
        lines.append(f"winner: {record.winner.artifact}, {record.winner.reason}")
    elif record.bench:
        lines.append("winner: none, no artifact passed every gate")
    for packaged in record.packaged:
        lines.append(f"packaged: {path_text(packaged.path)} ({packaged.target})")
        lines += [f"client: {path_text(packaged.client / 'client.py')}"] if packaged.client else []
    if out_dir:
        lines += [f"record: {path_text(out_dir / 'run.json')}", f"report: {path_text(out_dir / 'report.html')}"]
    return "\n".join(lines)


def next_commands(record: "RunRecord", out_dir: Path) -> list[str]:
    """Return useful commands after a run."""
    if record.exit_code:
        return []
    commands = [packaged.command for packaged in record.packaged]
    best = next((step for step in record.steps if record.winner and step.name == record.winner.artifact), None)
    if best and best.file:
        source = record.steps[0].file if record.steps[0].made else None
        commands.append(shell_line("optkit", "inspect", path_text(out_dir / best.file)))
        if source and source != best.file:
            commands.append(shell_line("optkit", "bench", path_text(out_dir / source), path_text(out_dir / best.file)))
    return [f"next: {command}" for command in commands]


def passport_text(passport: Passport, output: Path | None) -> str:
    """Return the artifact's facts, notes and check results; `output` is None if it was not written."""
    artifact = passport.artifact
    facts = f"{artifact.format}, {artifact.precision}, {_size(artifact)}"
    where = f"{path_text(output)} ({facts})" if output else "not written"
    return "\n".join([where, *(f"  {note}" for note in artifact.notes), *_proofs(passport)])


def _proofs(passport: Passport) -> list[str]:
    lines = []
    if passport.parity:
        parity = passport.parity
        points = len({tuple(o.sizes.items()) for o in parity.outputs})
        worst = "" if parity.max_abs is None else f", max abs {parity.max_abs:.3g}, cosine {parity.cosine or 0:.6f}"
        if parity.sqnr_db is not None and parity.tolerance.min_sqnr_db is not None:
            worst += f", SQNR {parity.sqnr_db:.1f} dB"
        verdict = "equal" if parity.passed else "not equal"
        lines.append(f"  parity: {verdict} at {points} points ({parity.values}; within {parity.tolerance}{worst})")
    if passport.batch_independence and passport.batch_independence.dim:
        of = " for the model that it was built from" if passport.unproven else ""
        lines.append(f"  batch independence: {'passed' if passport.batch_independence.passed else 'failed'}{of}")
    if passport.accuracy:
        lines.append(f"  accuracy: {passport.accuracy.value:.4f}")
    lines += [f"  {shift}" for shift in passport.shifts]
    if passport.unproven:
        lines.append(f"  not tested: parity, accuracy and the precision of layers: {passport.unproven}")
    return lines


def packages_text(record: "PackageRecord") -> str:
    """Return the packages with their paths, files and notes."""
    lines = []
    for packaged in record.packages:
        lines.append(f"{path_text(packaged.path)} ({packaged.target}, version {packaged.version})")
        lines += [f"  {file}" for file in packaged.files]
        lines += [f"  {note}" for note in packaged.notes]
        lines += (
            [f"  client: {shell_line('python', path_text(packaged.client / 'client.py'))}"] if packaged.client else []
        )
    return "\n".join(lines)


def inspection_text(record: "Inspection") -> str:
    """Return the facts of a model file."""
    artifact = record.artifact
    lines = [f"{artifact.path.name}: {artifact.format}, {artifact.precision}, {size_text(record.size_bytes)}"]
    lines += [f"  input   {spec}" for spec in artifact.inputs]
    lines += [f"  output  {spec}" for spec in artifact.outputs]
    lines += [f"  dim     {name}: min {r.min}, opt {r.opt}, max {r.max}" for name, r in artifact.dims.items()]
    if record.onnx:
        facts = record.onnx
        lines.append(
            f"  onnx    opset {facts.opset}, IR {facts.ir_version}, by {facts.producer or 'an unknown producer'}"
        )
        common = sorted(facts.nodes.items(), key=lambda item: -item[1])
        lines.append(f"  nodes   {sum(facts.nodes.values())}: {', '.join(f'{n} {op}' for op, n in common[:8])}")
        lines += [f"  data    {name}" for name in facts.files]
    lines += _engine_lines(record)
    lines += _compiled_lines(record)
    lines.append(f"  sha256  {artifact.sha256}")
    if record.passport is None:
        return "\n".join([*lines, "  no passport: optkit does not know how the file was made, and has not checked it"])
    lines += [f"  made by {record.passport.stage or 'optkit'} with {_versions(artifact.built_with)}"]
    lines += [f"  note    {note}" for note in artifact.notes]
    lines += _proofs(record.passport)
    lines += [f"  p50     {m.p50_ms:.3f} ms at batch {m.batch} on {m.provider}" for m in record.passport.measurements]
    return "\n".join(lines)


def doctor_table(record: "Examination") -> Table:
    """Return the hardware and libraries of this machine."""
    machine = record.machine
    title = f"optkit {record.optkit}, Python {machine.python}, {machine.system}"
    table = plain_table(title, "item", "found", "purpose")
    vnni = {True: "with VNNI", False: "without VNNI: INT8 is slow, quantize with --reduce-range", None: ""}[
        machine.vnni
    ]
    memory = f"{machine.memory_gib} GiB" if machine.memory_gib else ""
    table.add_row("processor", f"{machine.cpu}, {machine.cores} cores, {memory}", vnni)
    table.add_row(
        "GPU", machine.gpu or "none that torch can use", "" if machine.gpu else "--device cuda will be refused"
    )
    for lib in record.libraries:
        style = "red" if lib.problem and lib.needed else "dim" if lib.problem else ""
        table.add_row(lib.name, Text(lib.problem or lib.version or "", style), lib.purpose)
    table.add_row(
        "providers", ", ".join(record.onnxruntime_providers) or "none", "of ONNX Runtime; each ran a model here"
    )
    return table


def engines_text(record: "Examination") -> list[str]:
    """Return where engines load: on this machine, in the Triton release, and for each given file."""
    lines = []
    if record.tensorrt:
        here = record.tensorrt
        lines.append(f"engines: {_loading(here) if here.target else f'none run here: {here.no_gpu}'}")
    if record.triton:
        release = record.triton
        lines.append(f"Triton {release.release} has TensorRT {release.tensorrt}")
        lines.append(f"  {release.source}")
    for verdict in record.engines:
        lines.append(f"{verdict.file}: built by {verdict.built_by} for {', '.join(map(sm_text, verdict.targets))}")
        lines.append(f"  here: {verdict.here or 'loads'}")
        if record.triton:
            lines.append(f"  Triton {record.triton.release}: {verdict.triton or 'loads'}")
    return ["\n".join(lines)] if lines else []


def _loading(here: "TensorRtHere") -> str:
    """Return the TensorRT versions whose engines run on this GPU, and those that only build engines for other GPUs."""
    target = here.target or ""
    titles = {name: f"{TITLES[name]} {version}" for name, version in here.versions.items()}
    runs = [title for name, title in titles.items() if runs_on(name, target)]
    others = [title for name, title in titles.items() if not runs_on(name, target)]
    loading = [f"engines of {' and '.join(runs)} for {sm_text(target)} load here"] if runs else []
    loading += [f"{title} does not run on {sm_text(target)}, but builds engines for other GPUs" for title in others]
    return "; ".join(loading)


def _engine_lines(record: "Inspection") -> list[str]:
    """Return the versions and GPUs of an engine, and whether it runs here."""
    engine = record.artifact.engine
    if engine is None:
        return []
    typed = "strongly typed" if engine.typed else "types by builder flags"
    lines = [
        f"  engine  {engine.precision}, {typed}, built by {engine.built_by} for {', '.join(map(sm_text, engine.targets))}"
    ]
    if engine.gpu:
        lines.append(f"  GPU     {engine.gpu}, driver {engine.driver}")
    lines += [
        f"  profile {i}: " + "; ".join(f"{name} {shapes}" for name, shapes in profile.items())
        for i, profile in enumerate(engine.profiles)
    ]
    lines += [f"  layers  {s.layers:.0%} in {s.precision}, {s.time:.0%} of the time" for s in engine.layers]
    lines.append(f"  onnx    sha256 {engine.onnx_sha256}")
    lines += [f"  warning {text}" for text in engine.warnings]
    lines.append(f"  here    {record.loads_here or 'loads'}")
    return lines


def _compiled_lines(record: "Inspection") -> list[str]:
    """Return what compiled a package, what it needs of a machine, and whether it runs here."""
    compiled = record.artifact.compiled
    if compiled is None:
        return []
    where = f"{compiled.gpu} ({sm_text(compiled.target or '')})" if compiled.target else compiled.machine
    settings = ", ".join(f"{name} {value}" for name, value in compiled.settings.items())
    return [
        f"  code    for {compiled.device}, {where}, by torch {compiled.torch} and {compiled.compiler}: loading it executes it",
        f"  uses    {compiled.instruction_set or 'no vector instructions of torch'}; GLIBC {compiled.glibc or 'of any version'}; "
        f"{', '.join(compiled.needed)}",
        *(f"  sizes   {name}: only {r.min} to {r.max}" for name, r in compiled.dims.items()),
        f"  seconds compiled in {compiled.compile_s:.1f}, loaded in {compiled.load_s:.2f}, first call {compiled.first_call_s:.3f}; {settings}",
        f"  here    {record.loads_here or 'loads'}",
    ]


def _versions(built_with: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in built_with.items())


def _size(artifact: Artifact) -> str:
    """Return the size of a file; the file of a record may have been deleted."""
    try:
        return size_text(artifact.size_bytes)
    except (ArtifactError, OSError):
        return "file missing"


def path_text(path: Path) -> str:
    """Return a path relative to the working directory if it is inside."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
