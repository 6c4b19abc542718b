"""`optkit run`: run a recipe from a file or from Python."""

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
from optkit.pipeline.run import run as run_plan
from optkit.recipe import Recipe as RecipeKeys
from optkit.recipe import load_recipe
from optkit.record import Record, faults
from optkit.report.html import publish
from optkit.system.lock import locked_folder

if TYPE_CHECKING:
    import torch

Keys = Mapping[str, Any] | Record  # the value of a key of a recipe


@dataclass(frozen=True)
class Recipe:
    """A recipe in Python. It has the keys of a recipe in YAML, with modules, functions and data in memory instead of strings.

    Args:
        name: name of the recipe and of its packages.
        model: module in memory, or a source such as `file.py:build`, relative to the current folder.
        inputs: inputs of the model, for example `{"image": "float32[batch,3,224,224]"}`; empty derives them from example inputs.
        steps: steps, each a stage with its keys, for example `{"stage": "export-onnx", "opset": 20}`.
        dims: range of each named dimension as (min, opt, max), for example `{"batch": (1, 8, 64)}`.
        outputs: names of the outputs, in order; None derives them from the outputs of the model.
        weights: file with a state dict to load into the model.
        weights_key: key of the state dict in `weights`; None uses the one that fits the model.
        args: arguments of the factory function.
        example: example inputs; used if `inputs` is not given.
        calibration: real samples for calibration and verification.
        evaluation: function that takes `predict` (feed -> output name -> array) and returns a number; larger is better.
        tolerances, gates, tensorrt, bench, choose, serve, ensembles: see the keys of a recipe in YAML.
    """

    name: str
    model: "torch.nn.Module | StrPath"
    steps: Sequence[Keys]
    inputs: Inputs = ()
    dims: Dims = field(default_factory=dict)
    outputs: Sequence[str] | None = None
    weights: StrPath | None = None
    weights_key: str | None = None
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
    """Run a recipe: export, optimize, verify, measure and package; write the records and the report.

    A run in the same folder repeats only the steps whose model, data or code has changed, and reuses the other artifacts. A later process
    cannot rebuild objects that a recipe has in memory.

    Args:
        recipe: YAML file, or a `Recipe`.
        output: folder of the run; None uses `build/NAME`.
        step: run only this step and the steps that it needs, without benchmark and packages.
        overrides: dotted key -> YAML value, for example `{"model.weights": "w.pt"}`; only for a recipe in a file.
        fresh: run all steps again, without reuse.
        locked: refuse to run if a version, a hash or a seed differs from `run.lock` in the folder (or NAME.lock beside NAME.yaml), and
            fail if an artifact differs.
        history: history file, to which runs are appended; None uses history.jsonl in the folder of the run.
        progress: callback `progress(description, done, total)` for long loops; `total` is None if it is unknown.

    Returns:
        the steps, the benchmark, the winner and the packages; `failures` lists the gates that failed.

    Raises:
        OptkitError: the recipe cannot be run. A failed step does not raise: it is recorded, and the other steps continue.
    """
    with call(progress) as api_call:
        plan = _plan(api_call, recipe, output, step, overrides)
        with locked_folder(plan.out_dir):
            record = run_plan(plan, fresh=fresh, finish=step is None, locked=locked)
            publish(record, plan.out_dir, Path(history) if history else plan.out_dir / HISTORY_FILE)
        return record


def plan(
    recipe: StrPath | Recipe,
    output: StrPath | None = None,
    *,
    step: str | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Plan:
    """Check a recipe and return its plan, without running it.

    Args:
        recipe: YAML file, or a `Recipe`.
        output: folder of the run; None uses `build/NAME`.
        step: plan only this step and the steps that it needs.
        overrides: dotted key -> YAML value; only for a recipe in a file.

    Returns:
        the steps in an order in which they can run.

    Raises:
        RecipeError: the recipe cannot be run; the message lists every fault.
    """
    with call() as api_call:
        return _plan(api_call, recipe, output, step, overrides)


def _plan(
    api_call: Call,
    recipe: StrPath | Recipe,
    output: StrPath | None,
    step: str | None,
    overrides: Mapping[str, str] | None,
) -> Plan:
    if isinstance(recipe, Recipe):
        if overrides:
            raise RecipeError(
                "overrides: apply only to a recipe in a file. Change the Recipe with dataclasses.replace."
            )
        keys, origin = _keys(api_call, recipe), None
    else:
        keys = load_recipe(Path(recipe), overrides)
        origin = Origin(recipe=os.fspath(recipe), overrides=dict(overrides or {}))
    return make_plan(keys, Path(output) if output else Path("build") / keys.name, step, origin)


def _keys(api_call: Call, recipe: Recipe) -> RecipeKeys:
    """Return the keys of a recipe, with targets instead of objects in memory."""
    content = {
        "name": recipe.name,
        "model": {
            "source": api_call.model(recipe.model),
            "weights": os.fspath(recipe.weights) if recipe.weights else None,
            "weights_key": recipe.weights_key,
            "args": dict(recipe.args),
            "example": api_call.example(recipe.example),
        },
        "outputs": tuple(recipe.outputs) if recipe.outputs else None,
        "dims": as_dims(recipe.dims),
        "data": {"calibration": api_call.data(recipe.calibration), "evaluation": api_call.function(recipe.evaluation)},
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
    """Return keys as plain values, as in YAML."""
    if isinstance(value, Record):
        return value.model_dump(exclude_unset=True)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, Iterable) and not isinstance(value, str) else value
