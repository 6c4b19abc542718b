"""One stage on its own: its file is made beside its destination, proven, and only then put in place."""

import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from optkit.api.arguments import Proof, SourceModel, samples_of, settings
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
from optkit.untrusted.paths import exists, file_fault, is_file, is_folder, new_file_fault

logger = logging.getLogger(__name__)


def make(stage: Stage, source: Artifact, output: Path, proof: Proof, *, force: bool) -> Passport:
    """Run one stage and prove its artifact, as a command asks for it.

    Raises:
        RecipeError: the limits do not fit together.
        OptkitError: as `make_file`.
    """
    if proof.max_drop is not None and proof.evaluate is None:
        raise RecipeError(
            f"--max-drop {proof.max_drop:g}: nothing measures accuracy. Give --evaluate file.py:evaluate."
        )
    return make_file(
        stage,
        source,
        output,
        requirements=proof.requirements(),
        gates=settings(Gates, max_accuracy_drop=proof.max_drop, batch_independence=not proof.allow_batch_dependence),
        samples=samples_of(source, proof.data),
        force=force,
    )


@contextlib.contextmanager
def making_source(model: SourceModel) -> Iterator[Artifact]:
    """Build a model in a temporary folder, and give its source artifact.

    Raises:
        ModelError: it cannot be built or run, or the contract does not fit it.
    """
    with tempfile.TemporaryDirectory(prefix="optkit-source-") as folder:
        source = model.make(Path(folder))
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
    """Run one stage and prove its artifact against the one that it was made from; `output` is written only when it holds.

    Args:
        stage: what to run.
        source: what it takes.
        output: the file to write; its passport, and external data if any, go beside it.
        requirements: tolerances, evaluation and device of the proof.
        gates: what must hold.
        samples: the values of the proof.
        force: whether an existing file may be replaced.

    Returns:
        the passport of what was made; its failures are the gates that it does not hold, and then nothing was written.

    Raises:
        OutputError: `output` exists, or cannot be written; nothing was changed.
        OptkitError: the stage or its proof could not be carried out.
    """
    output = output.absolute()
    check_output(output, force)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        workshop = tempfile.TemporaryDirectory(prefix=".optkit-", dir=output.parent)
    except OSError as e:
        raise OutputError(f"{output}: cannot be written ({e.strerror or e})") from e
    with workshop as folder:
        started = time.perf_counter()
        prover = Prover(source, samples, requirements)
        stage = stage.with_feeds(samples.real)
        feeds = stage.feeds(source)
        with doing(stage.step):
            artifact = run_stage(stage, source, Path(folder) / "made", prover, output.name)
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
            _publish(artifact, output)
    placed = artifact.model_copy(update={"path": output})
    return passport.model_copy(update={"artifact": placed, "failures": failures})


def check_output(output: Path, force: bool) -> None:
    """Refuse a destination that would lose something of the user's.

    Raises:
        OutputError: it is a folder, or a file and `force` was not given.
    """
    if fault := new_file_fault(passport_path(output)):
        raise OutputError(f"{output}: {fault}. Give another name with -o.")
    if is_folder(output):
        raise OutputError(f"{output}: is a directory; expected the name of a file to write")
    if exists(output) and not force:
        raise OutputError(f"{output}: exists already. Give --force to replace it, or another name with -o.")


def _publish(artifact: Artifact, output: Path) -> None:
    """Move the files into place, the model after its data, each whole or not at all; data of what was there goes."""
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
    """Return the data files that the passport of a file to be replaced names, as far as they lie beside it."""
    path = passport_path(output)
    try:
        names = Passport.read(path).artifact.files if is_file(path) else ()
    except ArtifactError:
        return set()
    return {output.parent / name for name in names if not file_fault(output.parent, name)}
