"""The folder of one Triton model: its configuration, one version of it, its warm-up data and golden samples, moved in at once."""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.errors import OutputError
from optkit.serving.golden import Golden, write_golden
from optkit.serving.packaged import files_below, staging
from optkit.serving.triton_config import config_text
from optkit.serving.triton_merge import Merged, merge_config
from optkit.serving.triton_record import FILE, GoldenFile, TritonRecord, record_or_none

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
        OutputError: the version is there already, the configuration there differs or was edited by hand where it would
            change, or the folder cannot be written. What was there is unchanged.
    """
    folder = repository / model.name
    version = str(model.version)
    if not force and (folder / version).exists():
        raise OutputError(
            f"{folder / version}: is there already; expected a new version. Set another version, or use --force to replace it."
        )
    before = record_or_none(folder)
    merged = Merged(config_text(model.config))
    if (folder / _CONFIG).exists():
        merged = merge_config(folder / _CONFIG, model.config, before.config if before else None, force=force)
    with staging(repository) as temporary:
        staged = temporary / model.name
        _write_files(staged / version, model.files)
        (staged / _CONFIG).write_text(merged.text, encoding="utf-8")
        if merged.original is not None:
            (staged / f"{_CONFIG}.orig").write_bytes(merged.original)
        if model.warmup:
            _write_files(staged / "warmup", model.warmup)
        kept = {name: entry for name, entry in before.golden.items() if name != version} if before else {}
        if model.golden is not None:
            file = f"golden/{version}.npz"
            write_golden(model.golden, staged / file)
            kept[version] = GoldenFile(file=file, tolerance=model.golden.tolerance)
        TritonRecord(config=config_text(model.config), golden=kept).write(staged / FILE)
        written = files_below(staged)
        _move_in(staged, folder, temporary / "replaced", keep=set() if force else {"warmup"})
    return written, merged.notes


def _write_files(folder: Path, files: Mapping[str, Path | bytes] | Mapping[str, bytes]) -> None:
    for name, content in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            target.write_bytes(content)
        else:
            shutil.copyfile(content, target)


def _move_in(staged: Path, folder: Path, old: Path, keep: set[str]) -> None:
    """Move a staged model to its place: whole where it is new, else part by part, the version last; `keep` stays as it is."""
    if not folder.exists():
        staged.rename(folder)
        return
    old.mkdir()
    _merge_folder(staged / "golden", folder / "golden")
    parts = sorted(staged.iterdir(), key=lambda part: part.name.isdigit())
    for part in parts:
        target = folder / part.name
        if target.exists():
            if part.name in keep:
                continue  # the configuration is the same, and with it the size of the warm-up data
            target.rename(old / part.name)
        try:
            part.rename(target)
        except OSError:
            if (old / part.name).exists():
                (old / part.name).rename(target)
            raise


def _merge_folder(staged: Path, folder: Path) -> None:
    """Copy what lies in a folder and not in the staged one into that, which is going to take its place."""
    for file in folder.iterdir() if folder.is_dir() and staged.is_dir() else ():
        if not (staged / file.name).exists():
            shutil.copyfile(file, staged / file.name)
