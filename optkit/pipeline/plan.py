"""Make a plan from a recipe: check everything before torch is imported and any work starts, and report all faults together."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from optkit import deps
from optkit.artifact import Format
from optkit.artifact.tensors import dimension_faults
from optkit.errors import OutputError, RecipeError
from optkit.messages import did_you_mean
from optkit.pytorch.source import is_onnx
from optkit.recipe import Recipe
from optkit.record import Document, Record
from optkit.stages import AnyStage, Stage
from optkit.untrusted.paths import exists, is_folder, new_file_fault

SOURCE = "source"  # the name of the model itself among the steps


class PlannedStep(Record):
    """A step and the step that makes its input; `skip` is the reason why it cannot run here."""

    stage: AnyStage
    parent: str
    skip: str | None = None

    @property
    def name(self) -> str:
        """The name of the step."""
        return self.stage.step


class Origin(Record):
    """The recipe file and the --set options that a run was started with."""

    recipe: str  # the path of its file, as given on the command line
    overrides: dict[str, str] = Field(default_factory=dict)  # --set: key -> value


class Plan(Document):
    """Every step, each after the step that makes its input."""

    schema_id: ClassVar[str] = "optkit/plan/1"

    recipe: Recipe
    out_dir: Path
    steps: tuple[PlannedStep, ...]
    origin: Origin | None = None


def make_plan(recipe: Recipe, out_dir: Path, only: str | None = None, origin: Origin | None = None) -> Plan:
    """Check a recipe and put its steps in order.

    Args:
        recipe: a recipe with absolute paths.
        out_dir: the folder of the artifacts; it may not exist yet.
        only: plan this step and the steps that it needs; None for all steps.
        origin: how the run was started, for its record.

    Raises:
        RecipeError: the recipe cannot run; the message lists every fault.
        OutputError: `out_dir` cannot be written.
    """
    steps, faults = _resolve(recipe.steps, Format.ONNX if is_onnx(recipe.model.source) else Format.PYTORCH)
    faults = [*_model_faults(recipe), *faults, *_work_faults(recipe), *_name_faults(recipe)]
    for i, step in enumerate(steps):
        missing = [deps.missing(module) for module in step.stage.requires() if not deps.installed(module)]
        if missing and step.stage.optional:
            steps[i] = step.model_copy(update={"skip": "; ".join(missing)})
        else:
            faults += [f"{_where(i, step.stage)}: {text}" for text in missing]
    names = [step.name for step in steps]
    if only is not None and only not in names:
        faults.append(f"--step {only}: is not a step of the recipe{did_you_mean(only, names)}")
    if faults:
        raise RecipeError("\n".join(faults))
    _check_writable(out_dir)
    chosen = tuple(_needed(steps, only) if only else steps)
    return Plan(recipe=recipe, out_dir=out_dir.absolute(), steps=chosen, origin=origin)


def _resolve(stages: Sequence[AnyStage], source: Format) -> tuple[list[PlannedStep], list[str]]:
    """Find the parent of every step: the source for a stage that takes a PyTorch model, otherwise the step before it."""
    formats: dict[str, Format] = {SOURCE: source}
    steps: list[PlannedStep] = []
    faults: list[str] = []
    for i, stage in enumerate(stages):
        where = _where(i, stage)
        if stage.step in formats:
            taken = (
                "this name is reserved for the source model"
                if stage.step == SOURCE
                else "an earlier step has the same name"
            )
            faults.append(f"{where}: {taken}. Set another one with name: ...")
            continue
        before = steps[-1].name if steps else SOURCE
        parent = stage.after or (SOURCE if Format.PYTORCH in stage.accepts else before)
        if parent not in formats:
            later = parent in {s.step for s in stages[i:]}
            hint = (
                ": that step comes later. Move it before this step." if later else did_you_mean(parent, list(formats))
            )
            faults.append(f"{where}: after {parent!r} is not an earlier step{hint}")
        elif formats[parent] not in stage.accepts:
            accepted = " or ".join(sorted(stage.accepts))
            add = f" Add an export-{accepted} step before it." if accepted == Format.ONNX else ""
            faults.append(f"{where}: accepts {accepted}, but {parent!r} is {formats[parent]}.{add}")
        formats[stage.step] = stage.produces
        steps.append(PlannedStep(stage=stage, parent=parent))
    return steps, faults


def _where(i: int, stage: Stage) -> str:
    named = f" {stage.name!r}" if stage.name else ""
    return f"steps.{i} ({stage.stage}{named})"


def _model_faults(recipe: Recipe) -> Iterator[str]:
    """Collect the faults that the records of the model and of its inputs report, each with its key."""
    yield from _under("model.", recipe.model.faults())
    if recipe.inputs:
        yield from _under("inputs: ", dimension_faults(recipe.inputs, recipe.dims))
        yield from _under("bench.", recipe.bench.faults(recipe.inputs, recipe.dims))
        yield from _under("choose.", recipe.choose.faults(recipe.bench.measured(recipe.inputs, recipe.dims)))


def _work_faults(recipe: Recipe) -> Iterator[str]:
    """Collect the faults that the records of data, steps, gates and packages report, each with its key."""
    calibration, evaluation = recipe.data.calibration, recipe.data.evaluation
    yield from _under("data.", recipe.data.faults())
    for i, stage in enumerate(recipe.steps):
        yield from _under(f"{_where(i, stage)}: ", stage.faults(calibration, evaluation))
    yield from _under("gates.", recipe.gates.faults(evaluation, recipe.bench.batches))
    names = [stage.step for stage in recipe.steps]
    for i, serving in enumerate(recipe.serve):
        yield from _under(f"serve.{i} ({serving.target}): ", serving.faults(names, recipe.dims))
    for i, ensemble in enumerate(recipe.ensembles):
        yield from _under(f"ensembles.{i} ({ensemble.name}): ", ensemble.faults(names, recipe.dims))


def _under(where: str, faults: Iterable[str]) -> Iterator[str]:
    yield from (f"{where}{fault}" for fault in faults)


def _name_faults(recipe: Recipe) -> Iterator[str]:
    """Find packages with the same name, models with the same folder, and ensembles with the folder of a step."""
    packages = [(serving.server, serving.served_name(recipe.name), serving.version) for serving in recipe.serve]
    for server, name, version in sorted({p for p in packages if packages.count(p) > 1}, key=str):
        yield f"serve: two entries write {name!r} version {version} for {server}. Change the name or version of one."
    models = list(dict.fromkeys(name for server, name, _ in packages if server == "triton"))
    for ensemble in recipe.ensembles:
        models += [ensemble.name, *dict.fromkeys(f"{ensemble.name}_{part.name}" for part in ensemble.parts)]
    for name in sorted({name for name in models if models.count(name) > 1}):
        yield f"ensembles: two models of the Triton repository have the name {name!r}. Rename one."
    folders = {SOURCE, "model_repository", "model_store", *(stage.step for stage in recipe.steps)}
    for ensemble in recipe.ensembles:
        if ensemble.name in folders:
            yield f"ensembles: {ensemble.name!r} is also the folder of a step. Rename the ensemble."


def _needed(steps: Sequence[PlannedStep], only: str) -> list[PlannedStep]:
    by_name = {step.name: step for step in steps}
    chain: list[PlannedStep] = []
    name = only
    while name != SOURCE:
        chain.insert(0, by_name[name])
        name = by_name[name].parent
    return chain


def _check_writable(out_dir: Path) -> None:
    if fault := new_file_fault(out_dir):
        raise OutputError(f"{out_dir}: {fault}. Choose another folder with -o.")
    existing = next(p for p in (out_dir.absolute(), *out_dir.absolute().parents) if exists(p))
    if not is_folder(existing):
        raise OutputError(f"{out_dir}: {existing} is a file; expected a folder. Choose another one with -o.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"{out_dir}: {existing} is not writable. Choose another folder with -o.")
