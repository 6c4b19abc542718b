"""`optkit run`: a recipe carried out, from a file or built in Python."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from optkit.api.arguments import Call, Data, Dims, Evaluate, Inputs, Progress, Scalar, StrPath, as_dims, as_inputs, call
from optkit.errors import RecipeError
from optkit.pipeline.history import HISTORY_FILE
from optkit.pipeline.plan import Origin, Plan, make_plan
from optkit.pipeline.records import RunRecord
from optkit.pipeline.run import run as carry_out
from optkit.recipe import Recipe as RecipeKeys
from optkit.recipe import load_recipe
from optkit.record import Record, faults
from optkit.report.html import publish

if TYPE_CHECKING:
    import torch

Keys = Mapping[str, Any] | Record  # what a recipe in YAML has under a key


@dataclass(frozen=True)
class Recipe:
    """A recipe built in Python: the keys are those of a recipe in YAML, with modules, functions and data in the place of strings.

    Args:
        name: of the recipe, and of what it packages.
        model: a module in memory, or a source such as `file.py:build`, relative to the current folder.
        inputs: what the model takes, as `{"image": "float32[batch,3,224,224]"}`; none: read off example inputs.
        steps: each a stage with its keys, as `{"stage": "export-onnx", "opset": 20}`.
        dims: the range of each named dimension, as `{"batch": (1, 8, 64)}`.
        outputs: names for the model's outputs, in order.
        weights: a state dict to load.
        args: arguments of the factory.
        example: example inputs, where `inputs` is left out.
        calibration: real samples for calibration and proofs.
        evaluation: takes `predict` and returns a number, larger is better.
        tolerances, gates, tensorrt, bench, choose, serve, ensembles: as in YAML.
    """

    name: str
    model: "torch.nn.Module | StrPath"
    steps: Sequence[Keys]
    inputs: Inputs = ()
    dims: Dims = field(default_factory=dict)
    outputs: Sequence[str] | None = None
    weights: StrPath | None = None
    args: Mapping[str, Scalar] = field(default_factory=dict)
    example: object = None
    calibration: Data | None = None
    evaluation: Evaluate | None = None
    tolerances: Keys = field(default_factory=dict)
    gates: Keys = field(default_factory=dict)
    tensorrt: Keys = field(default_factory=dict)
    bench: Keys = field(default_factory=dict)
    choose: Keys = field(default_factory=dict)
    serve: Sequence[Keys] = ()
    ensembles: Sequence[Keys] = ()


_AS_IN_YAML = ("tolerances", "gates", "tensorrt", "bench", "choose", "serve", "ensembles")


def run(
    recipe: StrPath | Recipe,
    output: StrPath | None = None,
    *,
    step: str | None = None,
    overrides: Mapping[str, str] | None = None,
    fresh: bool = False,
    locked: bool = False,
    history: StrPath | None = None,
    progress: Progress | None = None,
) -> RunRecord:
    """Carry out a recipe: export, optimize, prove, measure, package; write its records and its report.

    What a recipe has in memory is not rebuilt by a later process: a run in the same folder makes the steps anew whose model, data or code
    differs, and reuses the others.

    Args:
        recipe: a YAML file, or a `Recipe`.
        output: the folder of the run; None takes `build/NAME`.
        step: make only this step and what it needs, without benchmark and packages.
        overrides: dotted key -> YAML value, as `{"model.weights": "w.pt"}`; for a YAML file.
        fresh: make everything anew.
        locked: refuse to run where a version, a hash or a seed is not that of `run.lock` in the folder (or NAME.lock beside NAME.yaml), and
            fail where an artifact is another one.
        history: the file that runs are added to; None takes history.jsonl in the folder.
        progress: is called with what is done, how many turns are done, and of how many.

    Returns:
        every step, the benchmark, the winner and the packages; `failures` are the gates that are not held.

    Raises:
        OptkitError: the recipe cannot be carried out. A step that fails is recorded, and the others go on.
    """
    with call(progress) as given:
        plan = _plan(given, recipe, output, step, overrides)
        record = carry_out(plan, fresh=fresh, finish=step is None, locked=locked)
        publish(record, plan.out_dir, Path(history) if history else plan.out_dir / HISTORY_FILE)
        return record


def plan(
    recipe: StrPath | Recipe,
    output: StrPath | None = None,
    *,
    step: str | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Plan:
    """Check a recipe and return its plan; nothing is done.

    Args:
        recipe: as `run` takes it, like all that follow.
        output: the folder of the run.
        step: make only this step and what it needs.
        overrides: dotted key -> YAML value.

    Returns:
        every step in an order in which it can run.

    Raises:
        RecipeError: it cannot be carried out; lists every fault.
    """
    with call() as given:
        return _plan(given, recipe, output, step, overrides)


def _plan(
    given: Call,
    recipe: StrPath | Recipe,
    output: StrPath | None,
    step: str | None,
    overrides: Mapping[str, str] | None,
) -> Plan:
    if isinstance(recipe, Recipe):
        if overrides:
            raise RecipeError("overrides: are for a recipe in a file. Change the Recipe with dataclasses.replace.")
        keys, origin = _keys(given, recipe), None
    else:
        keys = load_recipe(Path(recipe), overrides)
        origin = Origin(recipe=os.fspath(recipe), overrides=dict(overrides or {}))
    return make_plan(keys, Path(output) if output else Path("build") / keys.name, step, origin)


def _keys(given: Call, recipe: Recipe) -> RecipeKeys:
    """Return the keys of a recipe, with targets in the place of what is in memory."""
    content = {
        "name": recipe.name,
        "model": {
            "source": given.model(recipe.model),
            "weights": os.fspath(recipe.weights) if recipe.weights else None,
            "args": dict(recipe.args),
            "example": given.example(recipe.example),
        },
        "outputs": tuple(recipe.outputs) if recipe.outputs else None,
        "dims": as_dims(recipe.dims),
        "data": {"calibration": given.data(recipe.calibration), "evaluation": given.function(recipe.evaluation)},
        "steps": [_plain(step) for step in recipe.steps],
        **{key: _plain(value) for key in _AS_IN_YAML if (value := getattr(recipe, key))},
    }
    inputs = as_inputs(recipe.inputs)
    if inputs:
        content["inputs"] = {spec.name: spec.type_text for spec in inputs}
    try:
        return RecipeKeys.model_validate(content).with_absolute_paths(Path.cwd())
    except ValidationError as e:
        raise RecipeError("\n".join(f"{recipe.name}: {line}" for line in faults(e))) from e


def _plain(value: Any) -> Any:
    """Return keys as YAML would give them."""
    if isinstance(value, Record):
        return value.model_dump(exclude_unset=True)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, Iterable) and not isinstance(value, str) else value
