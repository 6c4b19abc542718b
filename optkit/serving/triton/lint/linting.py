"""The lint of a repository, and safe fixes."""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.errors import OutputError
from optkit.record import atomic_path
from optkit.serving.triton.lint.agreement import check_agreement
from optkit.serving.triton.lint.batch_tensors import check_batch_tensors, check_resources
from optkit.serving.triton.lint.ensembles import check_ensemble
from optkit.serving.triton.lint.fields import check_fields, check_gpus
from optkit.serving.triton.lint.layout import check_layout
from optkit.serving.triton.lint.parameters import check_parameters
from optkit.serving.triton.lint.pbtxt import Edit, apply
from optkit.serving.triton.lint.reading import read_model
from optkit.serving.triton.lint.repository import CONFIG, Model, model_folders
from optkit.serving.triton.lint.rules import Finding, LintRecord, Problem, Severity
from optkit.serving.triton.lint.scheduling import check_scheduling
from optkit.system.lock import locked_folder
from optkit.untrusted.paths import exists

if TYPE_CHECKING:
    from tritonclient.grpc import model_config_pb2 as schema

logger = logging.getLogger(__name__)

_ROUNDS = 5  # of fixes; a fix can uncover another problem


def lint(repository: Path, *, fix: bool = False, gpus: int | None = None, strict: bool = False) -> LintRecord:
    """Find problems in a Triton model repository, without a server and without running its models.

    Args:
        repository: the folder of models.
        fix: make safe fixes. They change only the faulty part of a config.pbtxt; the old file stays as config.pbtxt.orig.
        gpus: the number of GPUs of the server, or None if it is unknown.
        strict: the server runs with --disable-auto-complete-config, so that what relies on auto-completion is an error.

    Raises:
        ArtifactError: the folder is not a repository.
        OutputError: a fix cannot be written.
    """
    fixed: list[Finding] = []
    names, problems = _look(repository, gpus)
    with locked_folder(repository) if fix else contextlib.nullcontext():
        for _ in range(_ROUNDS if fix else 0):
            done = _fix(repository, problems)
            if not done:
                break
            fixed += done
            names, problems = _look(repository, gpus)
    return LintRecord(
        repository=repository.absolute(),
        models=tuple(names),
        findings=tuple(_judged(found.finding, strict) for found in problems),
        fixed=tuple(fixed),
    )


def _judged(finding: Finding, strict: bool) -> Finding:
    relies = strict and finding.rule == "T102"
    return finding.model_copy(update={"severity": Severity.ERROR}) if relies else finding


def _look(repository: Path, gpus: int | None) -> tuple[list[str], list[Problem]]:
    models: dict[str, Model] = {}
    problems: list[Problem] = []
    for folder in model_folders(repository):
        model, unreadable = read_model(folder)
        models[model.name] = model
        problems += unreadable
    for model in models.values():
        problems += _problems(model, models, gpus)
    problems += check_resources(models)
    order = sorted(problems, key=lambda p: (p.finding.file, p.finding.line or 0, p.finding.rule))
    return list(models), order


def _problems(model: Model, models: dict[str, Model], gpus: int | None) -> Iterator[Problem]:
    yield from check_layout(model, models)
    yield from check_fields(model)
    yield from check_parameters(model)
    yield from check_batch_tensors(model)
    yield from check_scheduling(model)
    yield from check_agreement(model, models)
    yield from check_ensemble(model, models)
    if gpus is not None:
        yield from check_gpus(model, gpus)


def _fix(repository: Path, problems: Iterable[Problem]) -> list[Finding]:
    """Make all safe fixes, with one atomic write for each file. Return the fixed findings."""
    fixed: list[Finding] = []
    edits: dict[Path, list[Edit]] = {}
    for found in problems:
        if found.make_file is not None:
            _make(found.make_file)
            fixed.append(found.finding)
        elif found.edits:
            edits.setdefault(repository / found.finding.file, []).extend(found.edits)
            fixed.append(found.finding)
    for path, changes in edits.items():
        before = path.read_bytes()
        original = path.with_name(f"{CONFIG}.orig")
        if not exists(original):
            with atomic_path(original) as temporary:
                temporary.write_bytes(before)
        with atomic_path(path) as temporary:
            temporary.write_bytes(apply(before.decode("utf-8"), changes).encode())
        logger.info("fixed %s; the old file is %s", path, original.name)
    return fixed


def _make(file: Path) -> None:
    try:
        file.parent.mkdir(exist_ok=True)
        file.touch()
    except OSError as e:
        raise OutputError(f"{file}: cannot be created ({e.strerror or e})") from e


def loaded_versions(repository: Path) -> dict[str, tuple[int, ...]]:
    """Return model -> the versions that a server loads by the version policy.

    Raises:
        ArtifactError: the folder is not a repository.
    """
    return {folder.name: tuple(read_model(folder)[0].loaded) for folder in model_folders(repository)}


def uses_gpu(repository: Path) -> bool:
    """Return whether a model of the repository needs a GPU.

    Raises:
        ArtifactError: the folder is not a repository.
    """
    groups = [group for config in _configs(repository) for group in config.instance_group]
    return any(type(group).Kind.Name(group.kind) == "KIND_GPU" for group in groups)


def uses_cache(repository: Path) -> bool:
    """Return whether a model of the repository uses the response cache.

    Raises:
        ArtifactError: the folder is not a repository.
    """
    return any(config.response_cache.enable for config in _configs(repository))


def _configs(repository: Path) -> "list[schema.ModelConfig]":
    configs = (read_model(folder)[0].config for folder in model_folders(repository))
    return [config for config in configs if config is not None]
