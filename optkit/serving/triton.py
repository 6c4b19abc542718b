"""A Triton model repository: the model's folder with its configuration, this version of it, and its warm-up data."""

import shlex
import shutil
from pathlib import Path

from optkit.artifact import Artifact
from optkit.errors import ArtifactError, OutputError, StageError
from optkit.findings import BatchIndependence
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
from optkit.serving.triton_config import (
    config_text,
    differing_fields,
    model_config,
    read_config,
    warmup_files,
    warmup_of,
)
from optkit.serving.triton_contract import triton_contract
from optkit.tensors import Feed

IMAGE = "nvcr.io/nvidia/tritonserver:25.10-py3"
_CONFIG = "config.pbtxt"


def package_triton(
    artifact: Artifact,
    repository: Path,
    settings: TritonServing,
    *,
    name: str,
    independence: BatchIndependence | None,
    sample: Feed | None,
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
        force: replace this version, the configuration and the warm-up data where they are there already.

    Raises:
        StageError: the model cannot be served as asked; says why.
        FeedError: the sample does not fit the inputs.
        ArtifactError: a file of the artifact is missing, damaged or changed.
        OutputError: the version is there already, the configuration there differs, or the folder cannot be written.
            What was there is unchanged.
    """
    name = model_name(settings.name, name)
    check_packagable(artifact, "Triton")
    if artifact.engine and settings.instances.kind == "gpu":
        raise StageError(f"{artifact.path.name}: INT8 TorchScript runs on CPUs only. Set instances: {{kind: cpu}}.")
    contract = triton_contract(artifact, settings, independence)
    warmup = warmup_of(artifact, contract, sample) if settings.warmup else None
    config = model_config(name, artifact, settings, contract, warmup)
    files = model_files(artifact)
    folder = repository / name
    if not force:
        _refuse_other_version(folder / str(settings.version))
        _refuse_other_config(folder / _CONFIG, config)
    with staging(repository) as temporary:
        staged = temporary / name
        _write_version(staged / str(settings.version), files)
        (staged / _CONFIG).write_text(config_text(config), encoding="utf-8")
        if warmup and warmup.files:
            (staged / "warmup").mkdir()
            for tensor, file in warmup_files(warmup).items():
                (staged / "warmup" / file).write_bytes(warmup.files[tensor])
        written = files_below(staged)
        _move_in(staged, folder, temporary / "replaced", replace=force)
    notes = [*contract.notes, *_unloaded_note(folder, settings)]
    if warmup and not warmup.files:
        notes.append("the warm-up sends zeros, because no sample was given")
    return Packaged(
        target="triton",
        name=name,
        version=str(settings.version),
        path=folder.absolute(),
        files=written,
        notes=tuple(notes),
        command=serve_command(repository, settings),
    )


def serve_command(repository: Path, settings: TritonServing) -> str:
    """Return the command that serves a repository on this machine alone."""
    ports = " ".join(f"-p 127.0.0.1:{port}:{port}" for port in (8000, 8001, 8002))
    gpus = "--gpus all " if settings.instances.kind == "gpu" else ""
    mount = shlex.quote(f"{repository.absolute()}:/models:ro")
    return f"docker run --rm {gpus}{ports} -v {mount} {IMAGE} tritonserver --model-repository=/models"


def _refuse_other_version(version: Path) -> None:
    if version.exists():
        raise OutputError(
            f"{version}: is there already; expected a new version. Set another version, or use --force to replace it."
        )


def _refuse_other_config(path: Path, config: object) -> None:
    if not path.exists():
        return
    try:
        found = read_config(path)
    except ArtifactError as e:
        raise OutputError(f"{e}. Mend it, or use --force to replace it.") from e
    differing = differing_fields(found, config)
    if differing:
        raise OutputError(
            f"{path}: differs from what would be written in {listed(differing)}, and all versions share it. "
            f"Give the same options, set another name, or use --force to replace it."
        )


def _write_version(version: Path, files: dict[str, Path]) -> None:
    """Copy the model; with external data, `model.onnx` is a folder that holds the file of this name and its data."""
    first = next(iter(files))
    base = version / first if len(files) > 1 else version
    for name, file in files.items():
        target = base / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def _move_in(staged: Path, folder: Path, old: Path, *, replace: bool) -> None:
    """Move a staged model to its place: whole where it is new, else part by part, the version last."""
    if not folder.exists():
        staged.rename(folder)
        return
    old.mkdir()
    parts = sorted(staged.iterdir(), key=lambda part: part.name.isdigit())
    for part in parts:
        target = folder / part.name
        if target.exists():
            if not replace:
                continue  # the configuration is the same, and with it the size of the warm-up data
            target.rename(old / part.name)
        try:
            part.rename(target)
        except OSError:
            if (old / part.name).exists():
                (old / part.name).rename(target)
            raise


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
