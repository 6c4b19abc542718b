"""The config.properties of a TorchServe model store: the server's settings, and one entry for each model."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optkit.errors import ArtifactError, OutputError
from optkit.serving.names import name_fault
from optkit.serving.settings import TorchServeServing
from optkit.serving.torchserve.properties import line_of, read_properties, with_properties
from optkit.untrusted.documents import parse_json
from optkit.untrusted.paths import exists, is_file

RESPONSE_TIMEOUT_S = 120
_WORKERS = "default_workers_per_model"
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


@dataclasses.dataclass(frozen=True)
class ConfigChange:
    """The new content of a config.properties, and what the user had set otherwise: a text for each value that is replaced."""

    content: bytes
    replaced: tuple[str, ...]


def config_change(path: Path, name: str, settings: TorchServeServing, *, force: bool) -> ConfigChange:
    """Return the file `path` with this model added. Other models, other keys and comments stay.

    Raises:
        OutputError: the file has other settings for the server or for this model, and `force` is not set.
        ArtifactError: the file or its value of `models` cannot be read.
    """
    found = read_properties(path) if exists(path) else {}
    models = _models(path, found)
    entry = {settings.version: {"defaultVersion": True, "marName": f"{name}.mar"} | model_settings(settings)}
    versions = _other_versions(models.get(name, {}), name, settings.version) | entry
    replaced = _replaced(found, models, name, versions) if found else ()
    if replaced and not force:
        raise OutputError(
            f"{path}: other values are set; expected those that optkit writes. --force replaces {'; '.join(replaced)}. "
            f"It keeps everything else, and the old file as {path.name}.orig. Choose another folder, or use --force."
        )
    models[name] = versions
    installs = settings.requirements is not None or found.get("install_py_dep_per_model") == "true"
    values = _SERVER | {
        "install_py_dep_per_model": str(installs).lower(),
        "load_models": _load_models(found, models),
        "models": json.dumps(models, sort_keys=True),
    }
    return ConfigChange(with_properties(path.read_bytes() if exists(path) else _HEADER, values), replaced)


def _other_versions(versions: Mapping[str, dict[str, Any]], name: str, version: str) -> dict[str, dict[str, Any]]:
    """Return the versions of a model that have an archive of their own. None of them is the default any longer."""
    others = {key: entry for key, entry in versions.items() if key != version and entry.get("marName") != f"{name}.mar"}
    return {key: entry | {"defaultVersion": False} for key, entry in others.items()}


def _replaced(found: Mapping[str, str], models: Models, name: str, versions: object) -> tuple[str, ...]:
    """Return a text for each value that is replaced, with the value before and after."""
    changed = [
        f"{key}={found[key]!r} (by {value!r})" if key in found else f"{key}, which is not set (by {value!r})"
        for key, value in _SERVER.items()
        if found.get(key) != value
    ]
    if models.get(name, versions) != versions:
        was, now = (json.dumps(entry, sort_keys=True) for entry in (models[name], versions))
        changed.append(f"models: {name!r} {was} (by {now})")
    return tuple(changed)


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


def default_workers(path: Path) -> int | None:
    """Return the number of workers of a model without `minWorkers`: `default_workers_per_model`. None if the file does not set it.

    Raises:
        ArtifactError: the file cannot be read, or the value is no positive integer.
    """
    value = read_properties(path).get(_WORKERS) if is_file(path) else None
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        raise ArtifactError(
            f"{path}: line {line_of(path, _WORKERS)}: {_WORKERS} is {value!r}; expected an integer of at least 1. Correct the value."
        )
    return int(value)


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


def _models(path: Path, found: Mapping[str, str]) -> Models:
    if fault := _models_fault(found):
        raise ArtifactError(
            f"{path}: line {line_of(path, 'models')}: models: {fault}; expected JSON of model -> version -> settings, as TorchServe reads it. Correct the value."
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
