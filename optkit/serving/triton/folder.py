"""The folder of one Triton model: configuration, version, warm-up data and golden samples, written atomically."""

import dataclasses
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.errors import OutputError
from optkit.hashing import sha256_of
from optkit.serving.golden import Golden, write_golden
from optkit.serving.staging import content_bytes, files_below, move_in, staging
from optkit.serving.triton.config import config_text
from optkit.serving.triton.merge import Merged, merge_config
from optkit.serving.triton.package_record import FILE, GoldenFile, TritonRecord, record_or_none
from optkit.system.space import check_space
from optkit.untrusted.paths import exists, file_in, is_folder

if TYPE_CHECKING:
    from tritonclient.grpc import model_config_pb2 as schema

_CONFIG = "config.pbtxt"


@dataclasses.dataclass(frozen=True)
class RepositoryModel:
    """One version of a model for a repository.

    `files` holds the files of the version folder and `warmup` those of the warm-up folder, by relative name. `golden` has the names and
    shapes that clients see.
    """

    name: str
    version: int
    config: "schema.ModelConfig"
    files: Mapping[str, Path | bytes]
    warmup: Mapping[str, bytes]
    golden: Golden | None


def write_model(repository: Path, model: RepositoryModel, *, force: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Add the version; other models and versions are unchanged. Return the written files, and notes.

    Raises:
        OutputError: as `write_models`.
    """
    return write_models(repository, (model,), force=force)[0]


def write_models(
    repository: Path, models: Sequence[RepositoryModel], *, force: bool
) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Add a version of each model, all or none; the last model is moved in last. Return the written files and notes of each.

    Raises:
        OutputError: a version exists already, an existing configuration differs or has hand edits that conflict, or the folder
            cannot be written. Existing files are unchanged.
    """
    written, moves = [], []
    merged = [_merged(repository, model, force=force) for model in models]
    size = sum(content_bytes(model.files.values()) for model in models)
    check_space(repository, size, "the package")
    with staging(repository) as temporary:
        for model, config in zip(models, merged, strict=True):
            staged, folder = temporary / model.name, repository / model.name
            _stage(staged, folder, model, config, force=force)
            written.append((files_below(staged), config.notes))
            # Without force, the configuration and thus the size of the warm-up data are the same.
            moves += list(_moves(staged, folder, keep=set() if force else {"warmup"}))
        move_in(moves, temporary)
    return written


def _merged(repository: Path, model: RepositoryModel, *, force: bool) -> Merged:
    """Return the configuration to write, merged with hand edits in the existing one."""
    folder = repository / model.name
    if exists(folder) and not is_folder(folder):
        raise OutputError(f"{folder}: is a file; expected a folder or nothing. Move it, or set another name.")
    if not force and exists(folder / str(model.version)):
        raise OutputError(
            f"{folder / str(model.version)}: exists already; expected a new version. Set another version, or use --force "
            f"to replace it."
        )
    if not exists(folder / _CONFIG):
        return Merged(config_text(model.config))
    before = record_or_none(folder)
    return merge_config(folder / _CONFIG, model.config, before.config if before else None, force=force)


def _stage(staged: Path, folder: Path, model: RepositoryModel, merged: Merged, *, force: bool) -> None:
    """Write the model to a staging folder, together with the golden samples of other versions from `folder`."""
    version = str(model.version)
    write_files(staged / version, model.files)
    (staged / _CONFIG).write_text(merged.text, encoding="utf-8")
    if merged.original is not None:
        (staged / f"{_CONFIG}.orig").write_bytes(merged.original)
    if model.warmup:
        write_files(staged / "warmup", model.warmup)
    before = record_or_none(folder)
    kept = {name: entry for name, entry in before.golden.items() if name != version} if before else {}
    if model.golden is not None:
        file = f"golden/{version}.npz"
        write_golden(model.golden, staged / file)
        kept[version] = GoldenFile(file=file, tolerance=model.golden.tolerance)
        _merge_folder(staged / "golden", folder / "golden")
    replaced = (
        f"{version}/",
        "golden/",
        _CONFIG,
        *(("warmup/",) if force else ()),
    )  # else the warm-up data of before stays
    others = before.files if before else {}
    files = {name: sha256_of(staged / name) for name in files_below(staged)}
    files |= {name: hashed for name, hashed in others.items() if not name.startswith(replaced)}
    TritonRecord(config=config_text(model.config), golden=kept, files=files).write(staged / FILE)


def write_files(folder: Path, files: Mapping[str, Path | bytes] | Mapping[str, bytes]) -> None:
    """Write files by relative name to a folder; create it if it does not exist."""
    for name, content in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            target.write_bytes(content)
        else:
            shutil.copyfile(content, target)


def _moves(staged: Path, folder: Path, keep: set[str]) -> Iterator[tuple[Path, Path]]:
    """Yield the moves: the whole folder for a new model, otherwise each part, the version last. Existing parts in `keep` stay."""
    if not exists(folder):
        yield staged, folder
        return
    for part in sorted(staged.iterdir(), key=lambda part: part.name.isdigit()):
        if part.name not in keep or not exists(folder / part.name):
            yield part, folder / part.name


def _merge_folder(staged: Path, folder: Path) -> None:
    """Copy the files of a folder that the staged folder lacks to the staged folder, because it will replace the folder.

    Raises:
        ArtifactError: an entry is not a regular file.
    """
    for file in folder.iterdir() if is_folder(folder) else ():
        if not exists(staged / file.name):
            found = file_in(folder, file.name, f"{folder}:", "Move it away: the folder is for golden samples only.")
            shutil.copyfile(found, staged / file.name)
