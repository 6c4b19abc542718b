"""The folder of one Triton model: its configuration, one version of it, its warm-up data and golden samples, moved in at once."""

import dataclasses
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.errors import OutputError
from optkit.serving.golden import Golden, write_golden
from optkit.serving.staging import files_below, move_in, staging
from optkit.serving.triton.config import config_text
from optkit.serving.triton.merge import Merged, merge_config
from optkit.serving.triton.record import FILE, GoldenFile, TritonRecord, record_or_none
from optkit.untrusted.paths import file_in

if TYPE_CHECKING:
    from tritonclient.grpc import model_config_pb2 as schema

_CONFIG = "config.pbtxt"


@dataclasses.dataclass(frozen=True)
class TritonModel:
    """One version of a model as it is to lie in a repository.

    `files` are those of the version folder, by name relative to it; `warmup` those of the warm-up folder; `golden` is as clients
    of the server see it.
    """

    name: str
    version: int
    config: "schema.ModelConfig"
    files: Mapping[str, Path | bytes]
    warmup: Mapping[str, bytes]
    golden: Golden | None


def write_model(repository: Path, model: TritonModel, *, force: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Add the version; other models and versions are not touched. Return the files written, and notes.

    Raises:
        OutputError: as `write_models`.
    """
    return write_models(repository, (model,), force=force)[0]


def write_models(
    repository: Path, models: Sequence[TritonModel], *, force: bool
) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Add a version of each model, all of them or none; the last one takes its place last. Return the files written and notes of each.

    Raises:
        OutputError: a version is there already, a configuration there differs or was edited by hand where it would
            change, or the folder cannot be written. What was there is unchanged.
    """
    written, moves = [], []
    merged = [_merged(repository, model, force=force) for model in models]
    with staging(repository) as temporary:
        for model, config in zip(models, merged, strict=True):
            staged, folder = temporary / model.name, repository / model.name
            _stage(staged, folder, model, config)
            written.append((files_below(staged), config.notes))
            # Unforced, the configuration is the same, and with it the size of the warm-up data.
            moves += list(_moves(staged, folder, keep=set() if force else {"warmup"}))
        move_in(moves, temporary / ".replaced")
    return written


def _merged(repository: Path, model: TritonModel, *, force: bool) -> Merged:
    """Return the configuration as it is to be written, with what a person edited in that which is there."""
    folder = repository / model.name
    if folder.exists() and not folder.is_dir():
        raise OutputError(
            f"{folder}: is a file; expected a place for the folder of a model. Move it, or set another name."
        )
    if not force and (folder / str(model.version)).exists():
        raise OutputError(
            f"{folder / str(model.version)}: is there already; expected a new version. Set another version, or use --force "
            f"to replace it."
        )
    if not (folder / _CONFIG).exists():
        return Merged(config_text(model.config))
    before = record_or_none(folder)
    return merge_config(folder / _CONFIG, model.config, before.config if before else None, force=force)


def _stage(staged: Path, folder: Path, model: TritonModel, merged: Merged) -> None:
    """Write the model to a folder of its own, with the golden samples of the other versions that lie in `folder`."""
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
    TritonRecord(config=config_text(model.config), golden=kept).write(staged / FILE)


def write_files(folder: Path, files: Mapping[str, Path | bytes] | Mapping[str, bytes]) -> None:
    """Write files by their name relative to a folder, which is made if need be."""
    for name, content in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            target.write_bytes(content)
        else:
            shutil.copyfile(content, target)


def _moves(staged: Path, folder: Path, keep: set[str]) -> Iterator[tuple[Path, Path]]:
    """Return what takes which place: the whole model where it is new, else each part, the version last; `keep` stays as it is."""
    if not folder.exists():
        yield staged, folder
        return
    for part in sorted(staged.iterdir(), key=lambda part: part.name.isdigit()):
        if part.name not in keep or not (folder / part.name).exists():
            yield part, folder / part.name


def _merge_folder(staged: Path, folder: Path) -> None:
    """Copy what lies in a folder and not in the staged one into that, which is going to take its place.

    Raises:
        ArtifactError: something there is no regular file.
    """
    for file in folder.iterdir() if folder.is_dir() else ():
        if not (staged / file.name).exists():
            found = file_in(folder, file.name, f"{folder}:", "Move it away: golden samples alone lie there.")
            shutil.copyfile(found, staged / file.name)
