"""The plan: a recipe checked against what is there, before torch is imported and before any work; all faults at once."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from optkit import deps, user_code
from optkit.artifact import Format
from optkit.artifact.tensors import batch_dim, dimension_faults
from optkit.data import data_fault
from optkit.errors import OutputError, RecipeError
from optkit.messages import did_you_mean
from optkit.pytorch.source import is_onnx, source_fault
from optkit.pytorch.weights import weights_fault
from optkit.recipe import Recipe
from optkit.record import Document, Record
from optkit.serving import AnyServing, TritonPythonServing
from optkit.stages import AnyStage, QuantizeDynamic, QuantizeStatic, QuantizeTorch, Stage

SOURCE = "source"  # the name of the model itself among the steps
FASTEST = "fastest"  # the artifact of a serve entry that takes the winner


class PlannedStep(Record):
    """A step and where its input comes from; `skip` says why it cannot run here."""

    stage: AnyStage
    parent: str
    skip: str | None = None

    @property
    def name(self) -> str:
        """The name of the step."""
        return self.stage.step


class Origin(Record):
    """What was typed to make a run."""

    recipe: str  # the path of its file, as it was typed
    overrides: dict[str, str] = Field(default_factory=dict)  # --set: key -> value


class Plan(Document):
    """Every step in an order in which it can run."""

    schema_id: ClassVar[str] = "optkit/plan/1"

    recipe: Recipe
    out_dir: Path
    steps: tuple[PlannedStep, ...]
    origin: Origin | None = None


def make_plan(recipe: Recipe, out_dir: Path, only: str | None = None, origin: Origin | None = None) -> Plan:
    """Check a recipe and put its steps in order.

    Args:
        recipe: its paths are absolute.
        out_dir: where artifacts go; it may not exist yet.
        only: the one step that is wanted, with those that it needs.
        origin: what was typed, for the record.

    Raises:
        RecipeError: it cannot be carried out; lists every fault.
        OutputError: `out_dir` cannot be written.
    """
    steps, faults = _resolve(recipe.steps, Format.ONNX if is_onnx(recipe.model.source) else Format.PYTORCH)
    faults = [*_model_faults(recipe), *faults, *_data_faults(recipe), *_gate_faults(recipe)]
    faults += [*_serve_faults(recipe), *_ensemble_faults(recipe)]
    for i, step in enumerate(steps):
        missing = [deps.missing(module) for module in step.stage.requires() if not deps.installed(module)]
        if missing and step.stage.optional:
            steps[i] = step.model_copy(update={"skip": "; ".join(missing)})
        else:
            faults += [f"{_where(i, step.stage)}: {text}" for text in missing]
    names = [step.name for step in steps]
    if only is not None and only not in names:
        faults.append(f"--step {only}: no such step{did_you_mean(only, names)}")
    if faults:
        raise RecipeError("\n".join(faults))
    _check_writable(out_dir)
    chosen = tuple(_needed(steps, only) if only else steps)
    return Plan(recipe=recipe, out_dir=out_dir.absolute(), steps=chosen, origin=origin)


def _resolve(stages: Sequence[AnyStage], source: Format) -> tuple[list[PlannedStep], list[str]]:
    """Find the parent of every step: a stage of PyTorch models starts at the source, any other takes the step before it."""
    formats: dict[str, Format] = {SOURCE: source}
    steps: list[PlannedStep] = []
    faults: list[str] = []
    for i, stage in enumerate(stages):
        where = _where(i, stage)
        if stage.step in formats:
            taken = (
                "is the name of the model itself" if stage.step == SOURCE else "there is a step of that name before it"
            )
            faults.append(f"{where}: {taken}. Give it a name of its own with name: ...")
            continue
        before = steps[-1].name if steps else SOURCE
        parent = stage.after or (SOURCE if Format.PYTORCH in stage.accepts else before)
        if parent not in formats:
            later = parent in {s.step for s in stages[i:]}
            hint = "; it comes later: move it before this step" if later else did_you_mean(parent, list(formats))
            faults.append(f"{where}: after {parent!r}, which is no step before it{hint}")
        elif formats[parent] not in stage.accepts:
            wanted = " or ".join(sorted(stage.accepts))
            add = f" Add an export-{wanted} step before it." if wanted == Format.ONNX else ""
            faults.append(f"{where}: accepts {wanted}, but {parent!r} is {formats[parent]}.{add}")
        formats[stage.step] = stage.produces
        steps.append(PlannedStep(stage=stage, parent=parent))
    return steps, faults


def _where(i: int, stage: Stage) -> str:
    named = f" {stage.name!r}" if stage.name else ""
    return f"steps.{i} ({stage.stage}{named})"


def _model_faults(recipe: Recipe) -> Iterator[str]:
    fault = source_fault(recipe.model.source)
    if fault:
        yield f"model.source: {fault}"
    fault = weights_fault(Path(recipe.model.weights)) if recipe.model.weights else None
    if fault:
        yield f"model.weights: {fault}"
    if recipe.model.example and (fault := user_code.target_fault(recipe.model.example)):
        yield f"model.example: {fault}"
    if recipe.inputs:
        yield from (f"inputs: {text}" for text in dimension_faults(recipe.inputs, recipe.dims))
        yield from _batch_faults(recipe)


def _data_faults(recipe: Recipe) -> Iterator[str]:
    for key, target in (("calibration", recipe.data.calibration), ("evaluation", recipe.data.evaluation)):
        fault = target and (data_fault(target) if key == "calibration" else user_code.target_fault(target))
        if fault:
            yield f"data.{key}: {fault}"
    for i, stage in enumerate(recipe.steps):
        static = isinstance(stage, QuantizeTorch) and stage.mode == "static"
        if (static or isinstance(stage, QuantizeStatic)) and not stage.data:
            yield f"{_where(i, stage)}: no calibration data; name some as data.calibration: file.py:function"
        elif stage.data and stage.data != recipe.data.calibration and (fault := data_fault(stage.data)):
            yield f"{_where(i, stage)}: {fault}"
        if isinstance(stage, (QuantizeStatic, QuantizeDynamic)):
            yield from (f"{_where(i, stage)}: {text}" for text in _limit_faults(stage, recipe))
    if recipe.gates.max_accuracy_drop is not None and not recipe.data.evaluation:
        yield "gates.max_accuracy_drop: nothing measures accuracy; name a function as data.evaluation: file.py:evaluate"


def _gate_faults(recipe: Recipe) -> Iterator[str]:
    gates = recipe.gates
    if gates.max_regression is not None and gates.baseline is None:
        yield "gates.max_regression: nothing to hold it against; name a run.json of before as gates.baseline"
    if gates.baseline is not None:
        if gates.max_regression is None:
            yield "gates.baseline: no gate uses it; say how much slower is allowed as gates.max_regression: 5%"
        if not Path(gates.baseline).is_file():
            yield f"gates.baseline: {gates.baseline}: no such file. Keep the run.json of a good run there."
    by_batch = {"max_latency_ms": gates.max_latency_ms, "min_samples_per_s": gates.min_samples_per_s}
    for key, limits in by_batch.items():
        if isinstance(limits, dict) and recipe.bench.batches:
            missing = sorted(set(limits) - set(recipe.bench.batches))
            if missing:
                yield f"gates.{key}: batch {', '.join(map(str, missing))} is not among bench.batches, so it is not measured"


def _limit_faults(stage: QuantizeStatic | QuantizeDynamic, recipe: Recipe) -> Iterator[str]:
    if stage.max_drop is not None and not recipe.data.evaluation:
        yield "max_drop: nothing measures accuracy; name a function as data.evaluation: file.py:evaluate"
    if stage.min_cosine is not None and not recipe.data.calibration:
        yield "min_cosine: there are no samples to judge on; name some as data.calibration: file.py:function"


def _batch_faults(recipe: Recipe) -> Iterator[str]:
    dim = batch_dim(recipe.inputs)
    allowed = recipe.dims.get(dim) if dim else None
    measured = recipe.bench.batches or ((allowed.min, allowed.opt, allowed.max) if allowed else (1,))
    if recipe.choose.batch is not None and recipe.choose.batch not in measured:
        yield f"choose.batch: {recipe.choose.batch} is not measured; bench.batches are {', '.join(map(str, measured))}"
    for batch in recipe.bench.batches:
        if allowed and not allowed.min <= batch <= allowed.max:
            yield f"bench.batches: {batch}; {dim!r} is declared from {allowed.min} to {allowed.max}"
        elif not allowed and batch != 1:
            yield f"bench.batches: {batch}; the inputs share no batch dimension, so only 1 can be measured"


def _serve_faults(recipe: Recipe) -> Iterator[str]:
    names = [stage.step for stage in recipe.steps]
    for i, serving in enumerate(recipe.serve):
        where = f"serve.{i} ({serving.target})"
        if isinstance(serving, TritonPythonServing):
            yield from (f"{where}: {fault}" for fault in _function_faults(serving, recipe))
        elif serving.artifact != FASTEST and serving.artifact not in names:
            near = did_you_mean(serving.artifact, [FASTEST, *names])
            yield f"{where}: artifact {serving.artifact!r} is no step{near}"
        yield from (f"{where}: {file}: no such file" for file in serving.files_read if not Path(file).is_file())
    packages = [(_server(serving), _served_name(serving, recipe), serving.version) for serving in recipe.serve]
    for target, name, version in sorted({p for p in packages if packages.count(p) > 1}, key=str):
        yield f"serve: two entries write {name!r} version {version} for {target}. Give one another name or version."


def _server(serving: AnyServing) -> str:
    return serving.target.partition("-")[0]  # a Python model lies in the repository of the others


def _served_name(serving: AnyServing, recipe: Recipe) -> str:
    if isinstance(serving, TritonPythonServing):
        return serving.name or user_code.split_target(serving.function)[1]
    return serving.name or recipe.name


def _function_faults(serving: TritonPythonServing, recipe: Recipe) -> Iterator[str]:
    if fault := user_code.target_fault(serving.function):
        yield fault
    if serving.data and (fault := data_fault(serving.data)):
        yield f"data: {fault}"
    used = {dim for spec in serving.inputs for dim in spec.shape if isinstance(dim, str)}
    yield from (f"dimension {dim!r} has no range in dims" for dim in sorted(used - set(recipe.dims)))


def _ensemble_name_faults(recipe: Recipe) -> Iterator[str]:
    """Find two models that would lie in one folder of the Triton repository, and an ensemble in the folder of a step."""
    served = [_served_name(serving, recipe) for serving in recipe.serve if _server(serving) == "triton"]
    models = list(dict.fromkeys(served))
    for ensemble in recipe.ensembles:
        models += [ensemble.name, *dict.fromkeys(f"{ensemble.name}_{part.name}" for part in ensemble.parts)]
    for name in sorted({name for name in models if models.count(name) > 1}):
        yield f"ensembles: two models of the Triton repository would be called {name!r}. Give one another name."
    folders = {SOURCE, "model_repository", "model_store", *(stage.step for stage in recipe.steps)}
    for ensemble in recipe.ensembles:
        if ensemble.name in folders:
            yield f"ensembles: {ensemble.name!r} is the folder of a step too. Give the ensemble another name."


def _ensemble_faults(recipe: Recipe) -> Iterator[str]:
    yield from _ensemble_name_faults(recipe)
    names = [FASTEST, *(stage.step for stage in recipe.steps)]
    for i, ensemble in enumerate(recipe.ensembles):
        where = f"ensembles.{i} ({ensemble.name})"
        targets = [ensemble.reference, *(t for part in ensemble.parts for t in (part.module, part.function) if t)]
        yield from (f"{where}: {fault}" for target in targets if (fault := user_code.target_fault(target)))
        if ensemble.data and (fault := data_fault(ensemble.data)):
            yield f"{where}: data: {fault}"
        specs = [spec for part in ensemble.parts for spec in part.inputs]
        used = {dim for spec in (*ensemble.inputs, *specs) for dim in spec.shape if isinstance(dim, str)}
        yield from (f"{where}: dimension {dim!r} has no range in dims" for dim in sorted(used - set(recipe.dims)))
        for part in ensemble.parts:
            if part.artifact is not None and part.artifact not in names:
                near = did_you_mean(part.artifact, names)
                yield f"{where}: part {part.name!r}: artifact {part.artifact!r} is no step{near}"


def _needed(steps: Sequence[PlannedStep], only: str) -> list[PlannedStep]:
    by_name = {step.name: step for step in steps}
    wanted: list[PlannedStep] = []
    name = only
    while name != SOURCE:
        wanted.insert(0, by_name[name])
        name = by_name[name].parent
    return wanted


def _check_writable(out_dir: Path) -> None:
    existing = next(p for p in (out_dir.absolute(), *out_dir.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise OutputError(f"{out_dir}: {existing} is a file; expected a folder. Choose another one with -o.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"{out_dir}: {existing} is not writable. Choose another folder with -o.")
