"""`run.lock`: what a run was made of and what it made, pinned; and what of it is another one now."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from optkit import user_code
from optkit.artifact import Format, environment
from optkit.data import Feeds
from optkit.errors import RecipeError
from optkit.hashing import hash_of, sha256_of
from optkit.pipeline.plan import Plan
from optkit.pipeline.records import StepResult
from optkit.pytorch.origins import open_origin
from optkit.pytorch.source import is_onnx, source_sha256
from optkit.record import Document
from optkit.untrusted.paths import is_file

LOCK_FILE = "run.lock"


class RunLock(Document):
    """The versions, hashes and seeds of a run, and the hashes of its artifacts."""

    schema_id: ClassVar[str] = "optkit/lock/1"
    sealed: ClassVar[bool] = True

    recipe: dict[str, str]  # key -> hash of its value, with paths relative to the recipe
    versions: dict[str, str]
    hardware: dict[str, str]
    inputs: dict[str, str]  # the model's code, its weights, the data and the functions -> hash
    reads: tuple[user_code.Reads, ...]  # what the code of the model, the example, the evaluation and the data read
    seeds: dict[str, int]
    artifacts: dict[str, str] = Field(
        default_factory=dict
    )  # step -> hash; without engines, which no two builds make equal


def pin(plan: Plan, results: Mapping[str, StepResult]) -> RunLock:
    """Return the lock of a run that has ended."""
    source = next(iter(results.values())).passport
    made, proven = (source.reads, source.proof_reads) if source else ((), ())
    return _pinned(plan, (*made, *proven)).model_copy(update={"artifacts": _artifacts(results)})


def read_lock(plan: Plan) -> RunLock:
    """Return the lock that holds for a plan: NAME.lock beside NAME.yaml, else `run.lock` in the folder of the run.

    Raises:
        RecipeError: there is none, or the recipe is not in a file.
        ArtifactError: it cannot be read, or was edited.
    """
    if plan.origin is None:
        raise RecipeError("--locked: the recipe was built in Python; expected one in a file, whose inputs have hashes")
    beside, own = Path(plan.origin.recipe).with_suffix(".lock"), plan.out_dir / LOCK_FILE
    path = next((path for path in (beside, own) if is_file(path)), None)
    if path is None:
        raise RecipeError(
            f"--locked: there is no {beside} and no {own}. Run once without --locked, and keep its {LOCK_FILE}."
        )
    return RunLock.read(path)


def check_inputs(lock: RunLock, plan: Plan) -> None:
    """Refuse a run of other things than those that are pinned.

    Raises:
        RecipeError: something is another one; names each.
    """
    found = list(_drifts(lock, plan))
    if found:
        raise RecipeError("\n".join(f"--locked: {drift}" for drift in found))


def artifact_drifts(lock: RunLock, results: Mapping[str, StepResult]) -> tuple[str, ...]:
    """Return which artifacts are not the pinned ones, though they are made of the same."""
    made = _artifacts(results)
    return tuple(
        f"--locked: {name}: SHA-256 {made[name]}; {LOCK_FILE} has {lock.artifacts.get(name, 'no such artifact')}"
        for name in made
        if made[name] != lock.artifacts.get(name)
    )


def _artifacts(results: Mapping[str, StepResult]) -> dict[str, str]:
    return {
        name: step.sha256
        for name, step in results.items()
        if step.sha256 and step.artifact and step.artifact.format is not Format.TENSORRT
    }


def _drifts(lock: RunLock, plan: Plan) -> Iterator[str]:
    now = _pinned(plan, lock.reads)
    for title, was, present in (
        ("recipe", lock.recipe, now.recipe),
        ("version", lock.versions, now.versions),
        ("hardware", lock.hardware, now.hardware),
        ("input", lock.inputs, now.inputs),
        ("seed", lock.seeds, now.seeds),
    ):
        for name in dict.fromkeys((*was, *present)):
            if was.get(name) != present.get(name):
                yield f"{title} {name}: {_shown(was.get(name))} in {LOCK_FILE}, {_shown(present.get(name))} now"
    yield from (f"{read}, which your code reads, has changed" for read in user_code.changes(lock.reads, _targets(plan)))


def _shown(value: str | int | None) -> str:
    text = "none" if value is None else str(value)
    return f"{text[:12]}..." if len(text) == 64 else text


def _targets(plan: Plan) -> tuple[str | None, ...]:
    recipe = plan.recipe
    model = None if is_onnx(recipe.model.source) else open_origin(recipe.model.source).target
    return model, recipe.model.example, recipe.data.evaluation, recipe.data.calibration


def _pinned(plan: Plan, reads: tuple[user_code.Reads, ...]) -> RunLock:
    recipe = plan.recipe
    base = Path(plan.origin.recipe).absolute().parent if plan.origin else Path.cwd()
    keys = json.loads(recipe.model_dump_json().replace(f"{base}/", ""))
    calibration, evaluation, weights = recipe.data.calibration, recipe.data.evaluation, recipe.model.weights
    inputs = {
        "model": source_sha256(recipe.model.source),
        "example": user_code.code_sha256(recipe.model.example) if recipe.model.example else None,
        "weights": sha256_of(Path(weights)) if weights else None,
        "calibration": Feeds(calibration, ()).sha256() if calibration else None,
        "evaluation": user_code.code_sha256(evaluation) if evaluation else None,
        **{file: sha256_of(Path(file)) for serving in recipe.serve for file in serving.files_read},
    }
    return RunLock(
        recipe={key: hash_of({"value": value}) for key, value in keys.items()},
        versions=environment.versions(*environment.RUNTIMES, packages=True),
        hardware=environment.hardware(gpu=recipe.bench.device == "cuda"),
        inputs={name.removeprefix(f"{base}/"): value for name, value in inputs.items() if value},
        reads=reads,
        seeds={"model": 0, "random samples": 0, "order of the benchmark": recipe.bench.seed},
    )
