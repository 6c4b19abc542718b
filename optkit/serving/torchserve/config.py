"""The config.properties of a TorchServe model store: what holds for the server, and one entry for each model."""

import json
from pathlib import Path
from typing import Any

from optkit.errors import OutputError
from optkit.serving.names import name_fault
from optkit.serving.settings import TorchServeServing

RESPONSE_TIMEOUT_S = 120
_HEADER = "# Written by optkit. Start with --ncs, so that TorchServe keeps no snapshot that overrides this file.\n"
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
_OF_MODELS = {"install_py_dep_per_model", "load_models", "models"}


def model_settings(settings: TorchServeServing) -> dict[str, int]:
    """Return the keys that config.properties and model-config.yaml have in common."""
    return {
        "minWorkers": settings.workers,
        "maxWorkers": settings.workers,
        "batchSize": settings.batch_size,
        "maxBatchDelay": settings.max_batch_delay_ms,
        "responseTimeout": RESPONSE_TIMEOUT_S,
    }


def properties_text(path: Path, name: str, settings: TorchServeServing, *, force: bool) -> str:
    """Return the text of `path` with this model in it, beside the models that are there already.

    Raises:
        OutputError: the file there holds other settings of the server, or of this model, and `force` is not set; or models whose
            names or settings cannot be written.
    """
    found = _read(path)
    models = _models(found)
    entry = {settings.version: {"defaultVersion": True, "marName": f"{name}.mar"} | model_settings(settings)}
    if found and not force:
        _refuse_differing(path, found, models, name, entry)
    _check_kept(path, models)
    models[name] = entry
    installs = settings.requirements is not None or found.get("install_py_dep_per_model") == "true"
    properties = _SERVER | {
        "install_py_dep_per_model": str(installs).lower(),
        "load_models": ",".join(f"{model}.mar" for model in sorted(models)),
        "models": json.dumps(models, sort_keys=True),
    }
    return _HEADER + "".join(f"{key}={value}\n" for key, value in properties.items())


def _check_kept(path: Path, models: dict[str, Any]) -> None:
    """Refuse to write the entries of other models again where they hold more than names and numbers.

    A line end in a name would begin a property of its own, and a backslash in a value is an escape.
    """
    odd = [name for name, kept in models.items() if name_fault(name) or "\\" in json.dumps(kept)]
    if odd:
        raise OutputError(
            f"{path}: its model {odd[0]!a} has a name or a setting that a file of properties cannot hold; expected names of letters, "
            f"digits, '_', '.' and '-'. Mend the file, or choose another folder."
        )


def installed_models(path: Path) -> dict[str, dict[str, Any]]:
    """Return file name of an archive -> its settings in a config.properties, of its default version; none where there is no file.

    Raises:
        OutputError: the file cannot be read.
    """
    versions = [entry for model in _models(_read(path)).values() if isinstance(model, dict) for entry in model.values()]
    found = [entry for entry in versions if isinstance(entry, dict) and isinstance(entry.get("marName"), str)]
    return {entry["marName"]: entry for entry in sorted(found, key=lambda entry: bool(entry.get("defaultVersion")))}


def _refuse_differing(
    path: Path, found: dict[str, str], models: dict[str, Any], name: str, entry: dict[str, Any]
) -> None:
    server = {key: value for key, value in found.items() if key not in _OF_MODELS}
    if server != _SERVER:
        changed = sorted({key for key, _ in server.items() ^ _SERVER.items()})
        raise OutputError(
            f"{path}: differs from what would be written in {', '.join(changed)}. "
            f"Choose another folder, or use --force to replace it."
        )
    if models.get(name, entry) != entry:
        raise OutputError(
            f"{path}: has model {name!r} with other settings. Set another name, or use --force to replace them."
        )


def _models(found: dict[str, str]) -> dict[str, Any]:
    try:
        models = json.loads(found.get("models", "{}"))
    except json.JSONDecodeError:
        return {}
    return models if isinstance(models, dict) else {}


def _read(path: Path) -> dict[str, str]:
    """Return the properties of a file, without comments; none where there is no file."""
    if not path.is_file():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise OutputError(f"{path}: is there and cannot be read ({e}). Choose another folder.") from e
    pairs = [line.partition("=") for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return {key.strip(): value.strip() for key, _, value in pairs}
