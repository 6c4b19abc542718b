"""Packaging for TorchServe: the archive of one model, and the config.properties of the model store."""

import filecmp
import importlib.resources
import shlex
from collections.abc import Mapping
from pathlib import Path

from optkit.artifact import Artifact, Format
from optkit.artifact.findings import BatchIndependence
from optkit.artifact.tensors import Feed
from optkit.errors import OutputError, StageError
from optkit.serving.clients.folder import check_writable
from optkit.serving.golden import Golden
from optkit.serving.names import model_name
from optkit.serving.packaged import Packaged, check_packagable, model_files
from optkit.serving.settings import TorchServeServing
from optkit.serving.staging import as_json, content_bytes, move_in, staging, writing
from optkit.serving.torchserve.config import config_change, model_settings
from optkit.serving.torchserve.contract import handler_contract
from optkit.serving.torchserve.generated_client import write_torchserve_client
from optkit.serving.torchserve.golden import golden_files, write_archive_golden
from optkit.serving.torchserve.mar import MANIFEST, RECORD, manifest, record_of, write_mar
from optkit.system.space import check_space
from optkit.untrusted.paths import exists, is_file, is_folder

_CONFIG = "config.properties"
_HANDLER = "optkit_handler.py"
_ARCHIVED = (
    "TorchServe is archived upstream: no updates, bug fixes or security patches are planned. "
    "For new deployments use Triton: optkit package triton."
)
_TOKEN = "requests need the inference key; TorchServe writes it to key_file.json in its working folder"


def package_torchserve(
    artifact: Artifact,
    model_store: Path,
    settings: TorchServeServing,
    *,
    name: str,
    independence: BatchIndependence | None = None,
    golden: Golden | None = None,
    force: bool = False,
    sample: Feed | None = None,
) -> Packaged:
    """Write NAME.mar and config.properties to a model store. Other models in the store stay.

    Equal artifacts, settings and user files give equal archives, byte for byte.

    Args:
        artifact: an ONNX or TorchScript model.
        model_store: the folder of archives; created if it does not exist.
        settings: the serve entry.
        name: the name of the model if the settings have none.
        independence: the result of the check for batch independence; a batch size above 1 needs a passed check.
        golden: the result of `archive_golden`, stored beside the archive for `optkit smoke`.
        force: replace an archive or a configuration that differs.
        sample: a feed for trying the client; None means zeros.

    Raises:
        StageError: the model cannot be served with these settings, or a user file is missing or has a name that is taken.
        ArtifactError: a file of the artifact is missing, damaged or changed, or config.properties cannot be read.
        OutputError: an existing file differs, or the folder cannot be written. Existing files are unchanged.
    """
    name = model_name(settings.name, name)
    check_packagable(artifact, "TorchServe")
    contract = handler_contract(artifact, settings, independence)
    members = _members(artifact, settings, name, contract)
    archive, config = model_store / f"{name}.mar", model_store / _CONFIG
    notes = [_ARCHIVED, _TOKEN]
    client = None
    with writing(model_store):
        if settings.client:
            check_writable(model_store, name)
        change = config_change(config, name, settings, force=force)
        check_space(model_store, content_bytes(members.values()), "the archive")
        with staging(model_store) as temporary:
            staged = temporary / archive.name
            write_mar(staged, members)
            if golden is not None:
                write_archive_golden(staged, golden, contract, settings.version, settings.class_names or ())
            (temporary / _CONFIG).write_bytes(change.content)
            if change.replaced:
                original = _original(config)
                (temporary / original.name).write_bytes(config.read_bytes())
                notes.append(f"{_CONFIG}: replaced {'; '.join(change.replaced)}; the old file is {original.name}")
            _move_in(temporary, archive, force=force)
        if settings.client:
            client, left = write_torchserve_client(model_store, name, None if settings.handler else contract, sample)
            notes += [left] if left else []
    if artifact.format is Format.ONNX:
        notes.append("TorchServe's Python needs onnxruntime: install it there, or add it to requirements")
    if settings.handler:
        notes.append(
            "no golden samples for optkit smoke: optkit does not know the requests and answers of your handler"
        )
    store = shlex.quote(str(model_store.absolute()))
    return Packaged(
        target="torchserve",
        name=name,
        version=settings.version,
        path=archive.absolute(),
        files=tuple(sorted(members)),
        notes=tuple(notes),
        command=f"torchserve --start --foreground --ncs --model-store {store} --ts-config {shlex.quote(str(config.absolute()))}",
        client=client,
    )


def _move_in(temporary: Path, archive: Path, *, force: bool) -> None:
    """Move a staged archive, its golden samples and the configuration to their places; golden samples of an earlier archive go.

    Raises:
        OutputError: an archive with other content is there.
    """
    staged = temporary / archive.name
    if exists(archive) and not force and not filecmp.cmp(staged, archive, shallow=False):
        raise OutputError(
            f"{archive}: exists already with other content. Set another name, or use --force to replace it."
        )
    made = sorted(file for file in temporary.iterdir() if is_file(file))
    move_in([(file, archive.with_name(file.name)) for file in made], temporary)
    for stale in golden_files(archive):
        if temporary / stale.name not in made:
            stale.unlink(missing_ok=True)


def _original(config: Path) -> Path:
    """Return where the old configuration is kept. Earlier copies stay: the user may have edited the file since."""
    names = [f"{config.name}.orig", *(f"{config.name}.orig.{i}" for i in range(2, 1000))]
    return next(path for path in map(config.with_name, names) if not exists(path))


def _members(
    artifact: Artifact, settings: TorchServeServing, name: str, contract: Mapping[str, object]
) -> dict[str, Path | bytes]:
    """Return name in the archive -> content."""
    import yaml

    model = model_files(artifact)
    handler = Path(settings.handler).name if settings.handler else _HANDLER
    described = {"modelName": name, "serializedFile": next(iter(model)), "handler": handler}
    described |= {"modelVersion": settings.version, "configFile": "model-config.yaml"}
    if settings.requirements:
        described["requirementsFile"] = "requirements.txt"
    members: dict[str, Path | bytes] = dict(model)
    _add(members, MANIFEST, manifest(described), "manifest")
    _add(members, "contract.json", as_json(contract), "contract")
    _add(members, "model-config.yaml", yaml.safe_dump(model_settings(settings)).encode(), "model configuration")
    if settings.class_names is not None:
        names = {str(i): text for i, text in enumerate(settings.class_names)}
        _add(members, "index_to_name.json", as_json(names), "class_names")
    if settings.requirements:
        _add(members, "requirements.txt", _user_file(settings.requirements, "requirements"), "requirements")
    _add(members, handler, _handler(settings.handler), "handler")
    if settings.image:
        _add(members, "optkit_images.py", _own_code("images.py", "optkit.data"), "image")
    for extra in settings.extra_files:
        _add(members, Path(extra).name, _user_file(extra, "extra_files"), "extra_files")
    _add(members, RECORD, record_of(members), "optkit")
    return members


def _handler(own: str | None) -> Path | bytes:
    """Return the user's handler, or optkit's handler if there is none."""
    if own is None:
        return _own_code("handler.py", "optkit.serving.torchserve")
    if Path(own).suffix != ".py":
        raise StageError(f"handler: {own}: is not a Python file; expected a path that ends in .py")
    return _user_file(own, "handler")


def _own_code(name: str, package: str) -> bytes:
    """Return a file of optkit that imports nothing of optkit."""
    return importlib.resources.files(package).joinpath(name).read_bytes()


def _user_file(path: str, setting: str) -> Path:
    if not is_file(path):
        what = "is a folder" if is_folder(path) else "no such file"
        raise StageError(f"{setting}: {path}: {what}; expected a file")
    return Path(path)


def _add(members: dict[str, Path | bytes], name: str, content: Path | bytes, setting: str) -> None:
    if name.lower() in {member.lower() for member in members}:
        raise StageError(
            f"{setting}: the archive would hold two files with the name {name!r}; expected different names. Rename one."
        )
    members[name] = content
