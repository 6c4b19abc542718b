"""One step of a run: its artifact is reused if its inputs and settings have not changed, otherwise made."""

import functools
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from optkit import user_code
from optkit.artifact import Artifact, Passport, environment, read_passport
from optkit.checks import Prover
from optkit.choose.stage import run_stage
from optkit.errors import ArtifactError, ModelError, OutputError
from optkit.hashing import hash_of, sha256_of
from optkit.pytorch.origins import open_origin
from optkit.pytorch.source import SOURCE_SUFFIX, ModelSource, copy_onnx_source, is_onnx, make_source, source_sha256
from optkit.recipe import Recipe
from optkit.stages import BuildTensorRt, Stage
from optkit.stages.quantizing import Quantizing
from optkit.system.temporary import temporary_folder
from optkit.tensorrt.installed import name_interpreter
from optkit.untrusted.paths import exists, is_file

logger = logging.getLogger(__name__)

_MODEL_LIBRARIES = ("transformers", "safetensors")  # that build a model of a folder, or read weights


def source_step(recipe: Recipe, folder: Path) -> tuple[Passport, bool]:
    """Return the passport of the source model, and whether it was reused.

    Raises:
        ModelError: the model cannot be built or run.
    """
    model, data = recipe.model, recipe.data.calibration
    key = hash_of(
        {
            "content": source_sha256(model.source),
            "example": user_code.code_sha256(model.example) if model.example else None,
            "weights": sha256_of(Path(model.weights)) if model.weights else None,
            **({"weights_key": model.weights_key} if model.weights_key else {}),
            "args": model.args,
            "inputs": [str(spec) for spec in recipe.inputs],
            "outputs": list(recipe.outputs or ()),
            "dims": {name: r.model_dump() for name, r in recipe.dims.items()},
            "versions": environment.versions(*_MODEL_LIBRARIES),
        }
    )
    onnx = Path(model.source) if is_onnx(model.source) else None
    targets = (None if onnx else open_origin(model.source).target, model.example)
    kept = _kept(folder / (onnx.name if onnx else f"model{SOURCE_SUFFIX}"), key, targets)
    if kept:
        return kept, True
    started = time.perf_counter()
    # The file contains the model's path relative to its folder, so it is written directly into the final folder.
    _remove(folder)
    if onnx:
        artifact = copy_onnx_source(onnx, folder, recipe.dims)
    else:
        make = functools.partial(
            make_source,
            model.source,
            folder,
            recipe.inputs,
            recipe.dims,
            weights=Path(model.weights) if model.weights else None,
            weights_key=model.weights_key,
            args=model.args,
            outputs=recipe.outputs,
            example=model.example,
        )
        try:
            artifact = make()
        except ModelError:
            if data is None:
                raise
            # Only a model that refuses random values depends on the data here; for others, new data makes nothing again.
            artifact = make(data=data)
    # Only what the model's own code read while it was built: the data function, which may have run since, has another key.
    reads = ({} if onnx else ModelSource.read(artifact.path).reads, *user_code.reads(targets[1:]))
    passport = Passport(artifact=artifact, stage="source", key=key, reads=reads, seconds=time.perf_counter() - started)
    passport.save()
    return passport, False


def stage_step(stage: Stage, parent: Artifact, folder: Path, prover: Prover) -> tuple[Passport, bool]:
    """Return the passport of a step's artifact, and whether it was reused.

    Args:
        stage: the stage to run.
        parent: its input.
        folder: the folder of the step; it is replaced when the step is made.
        prover: checks the candidates of a stage that chooses by measurement.

    Raises:
        OptkitError: the stage failed; the earlier content of `folder` is removed, and no unfinished file is left.
    """
    if isinstance(stage, BuildTensorRt) and stage.python:
        name_interpreter(Path(stage.python))  # a reused engine may run with this interpreter, too
    settings = stage.model_dump(mode="json", exclude={"name", "after", "optional", "calibration"})
    stage = stage.with_feeds(prover.samples.real)
    # The samples that an exporter runs are not part of the key: what it wrote is proven on them again.
    feeds = stage.feeds(parent)
    data = feeds.sha256() if feeds else None
    judged = prover.key() if isinstance(stage, Quantizing) and stage.limited else None
    made_of = {
        "parent": parent.identity,
        "settings": settings,
        "data": data,
        "versions": environment.versions() | dict(stage.versions()),
        "hardware": dict(stage.hardware()),
    }
    key = hash_of(made_of | ({"judged": judged} if judged else {}))
    targets = (feeds.target if feeds else None, *(prover.targets if judged else ()))
    kept = _kept(folder / stage.filename, key, targets)
    if kept:
        return kept, True
    stage = stage.with_earlier(folder / stage.filename)
    _remove(folder)
    started = time.perf_counter()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder.parent, folder.name) as partial:
            artifact = run_stage(stage, parent, partial, prover)
            seconds = time.perf_counter() - started
            passport = Passport(
                artifact=artifact,
                stage=stage.stage,
                settings=settings,
                data_sha256=data,
                key=key,
                reads=_reads(targets, artifact),
                seconds=seconds,
            )
            passport.save()
            partial.replace(folder)
    except OSError as e:
        raise OutputError(f"{folder}: cannot be written ({e.strerror or e})") from e
    moved = artifact.model_copy(update={"path": folder.absolute() / artifact.path.name})
    return passport.model_copy(update={"artifact": moved}), False


def _reads(targets: Sequence[str | None], artifact: Artifact) -> tuple[user_code.Reads, ...]:
    """Return what the user's code read for an artifact, also where its ranges are those of an earlier one."""
    data, *others = user_code.reads(targets)
    return (data | (artifact.calibration.reads if artifact.calibration else {}), *others)


def _kept(path: Path, key: str, targets: Sequence[str | None]) -> Passport | None:
    """Return the passport of an artifact that was made with this key, is still intact and read what is still the same, or None."""
    try:
        passport = read_passport(path) if is_file(path) else None
    except ArtifactError as e:
        logger.warning("not reused: %s", e)
        return None
    if passport is None or passport.key != key:
        return None
    if read := user_code.changed(passport.reads, targets):
        logger.info("%s: made again: %s, which your code reads, has changed", path.parent.name, read)
        return None
    return passport


def _remove(folder: Path) -> None:
    try:
        if exists(folder):
            shutil.rmtree(folder)
    except OSError as e:
        raise OutputError(f"{folder}: cannot be replaced ({e.strerror or e})") from e
