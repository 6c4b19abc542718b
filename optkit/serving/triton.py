"""A Triton model repository: the model's folder with its configuration, this version of it, and its warm-up data."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from optkit.artifact import Artifact
from optkit.errors import OutputError
from optkit.findings import BatchIndependence
from optkit.serving.golden import Golden, write_golden
from optkit.serving.packaged import (
    Packaged,
    check_packagable,
    files_below,
    listed,
    model_files,
    model_name,
    staging,
)
from optkit.serving.settings import TritonServing
from optkit.serving.triton_command import serve_command
from optkit.serving.triton_config import config_text, model_config, warmup_files, warmup_of
from optkit.serving.triton_contract import TritonContract, triton_contract
from optkit.serving.triton_merge import Merged, merge_config
from optkit.serving.triton_record import FILE, GoldenFile, TritonRecord, record_or_none
from optkit.tensors import Feed, TensorSpec

_CONFIG = "config.pbtxt"


def package_triton(
    artifact: Artifact,
    repository: Path,
    settings: TritonServing,
    *,
    name: str,
    independence: BatchIndependence | None,
    sample: Feed | None,
    golden: Golden | None = None,
    force: bool = False,
) -> Packaged:
    """Add one version of a model to a repository; other models and other versions are not touched.

    Args:
        artifact: an ONNX or TorchScript model.
        repository: the folder of models; made if need be.
        settings: the serve entry.
        name: of the model, where the settings give none.
        independence: what the check found on putting requests together; batching needs that it passed.
        sample: a feed for the warm-up; None warms up with zeros.
        golden: a feed with the artifact's answers, kept for `optkit smoke`.
        force: replace this version, the configuration and the warm-up data where they are there already. A configuration that
            was edited by hand is merged all the same.

    Raises:
        StageError: the model cannot be served as asked; says why.
        FeedError: the sample does not fit the inputs.
        ArtifactError: a file of the artifact is missing, damaged or changed.
        OutputError: the version is there already, the configuration there differs or was edited by hand where it would
            change, or the folder cannot be written. What was there is unchanged.
    """
    name = model_name(settings.name, name)
    check_packagable(artifact, "Triton")
    contract = triton_contract(artifact, settings, independence)
    warmup = warmup_of(artifact, contract, sample) if settings.warmup else None
    config = model_config(name, artifact, settings, contract, warmup)
    files = model_files(artifact)
    folder = repository / name
    version = str(settings.version)
    if not force:
        _refuse_other_version(folder / version)
    before = record_or_none(folder)
    merged = Merged(config_text(config))
    if (folder / _CONFIG).exists():
        merged = merge_config(folder / _CONFIG, config, before.config if before else None, force=force)
    with staging(repository) as temporary:
        staged = temporary / name
        _write_version(staged / version, files)
        (staged / _CONFIG).write_text(merged.text, encoding="utf-8")
        if merged.original is not None:
            (staged / f"{_CONFIG}.orig").write_bytes(merged.original)
        if warmup and warmup.files:
            (staged / "warmup").mkdir()
            for tensor, file in warmup_files(warmup).items():
                (staged / "warmup" / file).write_bytes(warmup.files[tensor])
        kept = dict(before.golden) if before else {}
        kept.pop(version, None)
        if golden is not None:
            kept[version] = _write_golden(golden, artifact, contract, staged, version)
        TritonRecord(config=config_text(config), golden=kept).write(staged / FILE)
        written = files_below(staged)
        _move_in(staged, folder, temporary / "replaced", keep=set() if force else {"warmup"})
    notes = [*contract.notes, *merged.notes, *_unloaded_note(folder, settings)]
    if warmup and not warmup.files:
        notes.append("the warm-up sends zeros, because no sample was given")
    return Packaged(
        target="triton",
        name=name,
        version=str(settings.version),
        path=folder.absolute(),
        files=written,
        notes=tuple(notes),
        command=serve_command(repository, settings.instances.kind == "gpu"),
    )


def _refuse_other_version(version: Path) -> None:
    if version.exists():
        raise OutputError(
            f"{version}: is there already; expected a new version. Set another version, or use --force to replace it."
        )


def _write_version(version: Path, files: dict[str, Path]) -> None:
    """Copy the model; with external data, `model.onnx` is a folder that holds the file of this name and its data."""
    first = next(iter(files))
    base = version / first if len(files) > 1 else version
    for name, file in files.items():
        target = base / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def _write_golden(
    golden: Golden, artifact: Artifact, contract: TritonContract, folder: Path, version: str
) -> GoldenFile:
    """Write the golden samples of a version as clients of the server see them: its names, its shapes, the rows of one request."""
    inputs = _shown(golden.inputs, artifact.inputs, contract.inputs, contract.max_batch_size)
    outputs = _shown(golden.outputs, artifact.outputs, contract.outputs, contract.max_batch_size)
    file = f"golden/{version}.npz"
    write_golden(Golden(inputs, outputs, golden.tolerance), folder / file)
    return GoldenFile(file=file, tolerance=golden.tolerance)


def _shown(
    feed: Feed, own: Sequence[TensorSpec], served: Sequence[TensorSpec], max_batch_size: int
) -> dict[str, np.ndarray]:
    """Return a feed under the names and shapes of the server, which shows a single number as [1]."""
    found = {}
    for spec, shown in zip(own, served, strict=True):
        array = feed[spec.name][:max_batch_size] if max_batch_size else feed[spec.name]
        single = len(spec.shape) == (1 if max_batch_size else 0)
        found[shown.name] = array.reshape(*array.shape, 1) if single else array
    return found


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


def _unloaded_note(folder: Path, settings: TritonServing) -> list[str]:
    """Say so when the version policy will not load what was written."""
    versions = {int(part.name) for part in folder.iterdir() if part.name.isdigit() and not part.name.startswith("0")}
    if settings.version_policy.loads(settings.version, versions):
        return []
    newest = settings.version_policy.latest
    return [
        f"Triton will not load version {settings.version}: the version policy takes the latest {newest} of "
        f"{listed(sorted(versions))}"
    ]
