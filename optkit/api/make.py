"""Run one stage: make its file in a temporary folder, verify it, and move it into place if it passes."""

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from optkit.api.arguments import SourceModel, Verification, samples_of, settings
from optkit.artifact import Artifact, Passport, passport_path
from optkit.artifact.gates import Gates
from optkit.checks import Prover, Requirements
from optkit.choose.stage import run_stage
from optkit.data import Samples
from optkit.errors import ArtifactError, OutputError, RecipeError
from optkit.pipeline.gates import gate_failures
from optkit.progress import doing
from optkit.pytorch.source import in_memory_notes
from optkit.stages import Stage
from optkit.system.lock import locked_file
from optkit.system.temporary import temporary_folder
from optkit.untrusted.paths import exists, file_fault, is_file, is_folder, new_file_fault

logger = logging.getLogger(__name__)


def make(stage: Stage, source: Artifact, output: Path, verification: Verification, *, force: bool) -> Passport:
    """Run one stage and verify its artifact, with the options of a command.

    Raises:
        RecipeError: a limit for accuracy is set without an evaluation function.
        OptkitError: see `make_file`.
    """
    if verification.max_drop is not None and verification.evaluate is None:
        raise RecipeError(
            f"--max-drop {verification.max_drop:g}: nothing measures accuracy. Give --evaluate file.py:evaluate."
        )
    return make_file(
        stage,
        source,
        output,
        requirements=verification.requirements(),
        gates=settings(
            Gates, max_accuracy_drop=verification.max_drop, batch_independence=not verification.allow_batch_dependence
        ),
        samples=samples_of(source, verification.data),
        force=force,
    )


@contextlib.contextmanager
def temporary_source(model: SourceModel) -> Iterator[Artifact]:
    """Build a model in a temporary folder and yield its source artifact.

    Raises:
        ModelError: the model cannot be built or run, or does not match the contract.
    """
    with temporary_folder() as folder:
        source = model.make(folder)
        for note in source.notes:
            logger.info("%s", note)
        yield source


def make_file(
    stage: Stage,
    source: Artifact,
    output: Path,
    *,
    requirements: Requirements,
    gates: Gates,
    samples: Samples,
    force: bool = False,
) -> Passport:
    """Run one stage and verify its artifact against the source artifact; write `output` only if all gates pass.

    Args:
        stage: stage to run.
        source: input artifact of the stage.
        output: file to write; its passport and its external data are written beside it.
        requirements: tolerances, evaluation function and device of the verification.
        gates: limits that the artifact must meet.
        samples: input values for the verification.
        force: replace `output` if it exists.

    Returns:
        the passport of the artifact; if its `failures` is not empty, gates failed and nothing was written.

    Raises:
        OutputError: `output` exists or cannot be written; nothing was changed.
        OptkitError: the stage or its verification failed to run.
    """
    output = output.absolute()
    with locked_file(output), temporary_folder(output.parent, output.name) as folder:
        check_output(output, force)
        started = time.perf_counter()
        prover = Prover(source, samples, requirements)
        stage = stage.with_feeds(samples.real)
        feeds = stage.feeds(source)
        with doing(stage.step):
            artifact = run_stage(stage, source, folder / "made", prover, output.name)
        artifact = artifact.model_copy(update={"notes": (*artifact.notes, *in_memory_notes(source))})
        passport = Passport(
            artifact=artifact,
            stage=stage.stage,
            settings=stage.model_dump(mode="json", exclude={"name", "after", "optional"}),
            data_sha256=feeds.sha256() if feeds else None,
            seconds=time.perf_counter() - started,
        )
        passport, _ = prover.prove(passport)
        needs_reference = gates.max_accuracy_drop is not None
        reference = prover.prove(Passport(artifact=source))[0].accuracy if needs_reference else None
        failures = gate_failures(passport, reference, gates)
        if not failures:
            passport.save()
            _move_into_place(artifact, output)
    placed = artifact.model_copy(update={"path": output})
    return passport.model_copy(update={"artifact": placed, "failures": failures})


def check_output(output: Path, force: bool) -> None:
    """Raise an error if writing `output` would overwrite something without `force`.

    Raises:
        OutputError: `output` is a folder, or a file that exists and `force` is false.
    """
    if fault := new_file_fault(passport_path(output)):
        raise OutputError(f"{output}: {fault}. Give another name with -o.")
    if is_folder(output):
        raise OutputError(f"{output}: is a directory; expected the name of a file to write")
    if exists(output) and not force:
        raise OutputError(f"{output}: exists already. Give --force to replace it, or another name with -o.")


def _move_into_place(artifact: Artifact, output: Path) -> None:
    """Move each file into place atomically, the model after its external data; then delete the old model's external data."""
    old = _data_files(output)
    new = {output.with_name(file.name): file for file in (*reversed(artifact.all_files), passport_path(artifact.path))}
    try:
        for target, file in new.items():
            file.replace(target)
        for file in old - set(new):
            file.unlink(missing_ok=True)
    except OSError as e:
        raise OutputError(f"{output}: cannot be written ({e.strerror or e})") from e


def _data_files(output: Path) -> set[Path]:
    """Return the external data files in the same folder that the passport of an existing `output` names."""
    path = passport_path(output)
    try:
        names = Passport.read(path).artifact.files if is_file(path) else ()
    except ArtifactError:
        return set()
    return {output.parent / name for name in names if not file_fault(output.parent, name)}
