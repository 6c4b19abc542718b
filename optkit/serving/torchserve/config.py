"""The config.properties of a TorchServe model store: the server's settings, and one entry for each model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optkit.errors import ArtifactError, OutputError
from optkit.serving.names import name_fault
from optkit.serving.settings import TorchServeServing
from optkit.serving.torchserve.properties import read_properties, with_properties
from optkit.untrusted.documents import parse_json
from optkit.untrusted.paths import exists, is_file

RESPONSE_TIMEOUT_S = 120
_HEADER = b"# Written by optkit. Start with --ncs, so that TorchServe keeps no snapshot that overrides this file.\n"
_SERVER = {
    "inference_address": "http://127.0.0.1:8080",
    "management_address": "http://127.0.0.1:8081",
    "metrics_address": "http://127.0.0.1:8082",
    "grpc_inference_address": "127.0.0.1",
    "grpc_management_address": "127.0.0.1",
    "disable_token_authorization": "false",
    "enable_model_api": "false",
    "allowed_urls": "file://.*",
    "job_queue_size": "100",
}

Models = dict[str, dict[str, dict[str, Any]]]  # model -> version -> settings


def model_settings(settings: TorchServeServing) -> dict[str, int]:
    """Return the settings of a model that config.properties and model-config.yaml have in common."""
    return {
        "minWorkers": settings.workers,
        "maxWorkers": settings.workers,
        "batchSize": settings.batch_size,
        "maxBatchDelay": settings.max_batch_delay_ms,
        "responseTimeout": RESPONSE_TIMEOUT_S,
    }


def config_content(path: Path, name: str, settings: TorchServeServing, *, force: bool) -> bytes:
    """Return the content of the file `path` with this model added. Other models, other keys and comments stay.

    Raises:
        OutputError: the file has other settings for the server or for this model, and `force` is not set.
        ArtifactError: the file or its value of `models` cannot be read.
    """
    found = read_properties(path) if exists(path) else {}
    models = {} if force and _models_fault(found) else _models(path, found)
    entry = {settings.version: {"defaultVersion": True, "marName": f"{name}.mar"} | model_settings(settings)}
    if found and not force:
        _refuse_differing(path, found, models, name, entry)
    models[name] = entry
    installs = settings.requirements is not None or found.get("install_py_dep_per_model") == "true"
    values = _SERVER | {
        "install_py_dep_per_model": str(installs).lower(),
        "load_models": _load_models(found, models),
        "models": json.dumps(models, sort_keys=True),
    }
    return with_properties(path.read_bytes() if exists(path) else _HEADER, values)


def installed_models(path: Path) -> dict[str, dict[str, Any]]:
    """Return file name of an archive -> settings of its default version in a config.properties. Without the file, return {}.

    Raises:
        ArtifactError: the file or its value of `models` cannot be read.
    """
    if not is_file(path):
        return {}
    versions = [entry for model in _models(path, read_properties(path)).values() for entry in model.values()]
    named = [entry for entry in versions if isinstance(entry.get("marName"), str)]
    return {entry["marName"]: entry for entry in sorted(named, key=lambda entry: bool(entry.get("defaultVersion")))}


def loaded_models(path: Path) -> list[str]:
    """Return the names of the models that TorchServe loads at its start, from `load_models`.

    `all` stands for every archive beside the file, as in TorchServe, and `name=file.mar` gives a model another name.

    Raises:
        ArtifactError: the file cannot be read.
    """
    entries = _load_entries(read_properties(path))
    if [entry.lower() for entry in entries] == ["all"]:
        return sorted(archive.stem for archive in path.parent.glob("*.mar"))
    return [Path(entry.partition("=")[0]).stem for entry in entries]


def _load_entries(found: Mapping[str, str]) -> list[str]:
    entries = [entry.strip() for entry in found.get("load_models", "").split(",")]
    return [entry for entry in entries if entry and entry.lower() != "none"]


def _load_models(found: Mapping[str, str], models: Models) -> str:
    """Return `load_models` with every model of the file. Existing entries stay; a name that cannot name an archive is not added."""
    entries = _load_entries(found)
    if [entry.lower() for entry in entries] == ["all"]:
        return entries[0]
    renamed = {entry.partition("=")[0] for entry in entries if "=" in entry}
    added = {f"{model}.mar" for model in models if model not in renamed and name_fault(model) is None}
    return ",".join(sorted({*entries, *added}))


def _refuse_differing(path: Path, found: Mapping[str, str], models: Models, name: str, entry: object) -> None:
    changed = sorted(key for key, value in _SERVER.items() if found.get(key) != value)
    if changed:
        raise OutputError(
            f"{path}: {', '.join(changed)}: the file has other values; expected the values that optkit writes. "
            f"Choose another folder, or use --force to replace them."
        )
    if models.get(name, entry) != entry:
        raise OutputError(
            f"{path}: models: {name!r} has other settings. Set another name, or use --force to replace them."
        )


def _models(path: Path, found: Mapping[str, str]) -> Models:
    if fault := _models_fault(found):
        raise ArtifactError(
            f"{path}: models: {fault}; expected JSON of model -> version -> settings, as TorchServe reads it. Correct the value."
        )
    models: Models = _parsed(found)
    return models


def _parsed(found: Mapping[str, str]) -> Any:
    return parse_json(found.get("models") or "{}", "the value")


def _models_fault(found: Mapping[str, str]) -> str | None:
    """Return why the value of `models` cannot be read, or None."""
    try:
        models = _parsed(found)
    except ArtifactError as e:
        return str(e)
    if not isinstance(models, dict):
        return f"the value is {json.dumps(models)[:80]}"
    for name, versions in models.items():
        if not isinstance(versions, dict) or not all(isinstance(entry, dict) for entry in versions.values()):
            return f"model {name!r} is {json.dumps(versions)[:80]}"
    return None
