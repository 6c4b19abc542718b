"""Migration of a TorchServe archive to a Triton repository, as a plain model if the handler allows it, otherwise with its handler."""

import importlib.resources
import logging
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit import onnx_file
from optkit.artifact import Artifact, Format, Precision, files_beside
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.errors import ArtifactError, OutputError, StageError, first_line
from optkit.hashing import sha256_of
from optkit.pytorch.script_file import describe_script
from optkit.record import validation_error_as
from optkit.serving.migrate.archive import OpenedMar
from optkit.serving.migrate.container import FILE, dockerfile
from optkit.serving.names import model_name
from optkit.serving.packaged import Packaged
from optkit.serving.settings import TritonServing
from optkit.serving.staging import files_below, move_in, staging, writing
from optkit.serving.torchserve.config import default_workers, installed_models
from optkit.serving.triton.command import serve_command
from optkit.serving.triton.config import config_text
from optkit.serving.triton.lint import needed_packages
from optkit.serving.triton_fields import Instances
from optkit.untrusted.archives import zip_fault
from optkit.untrusted.documents import parse_yaml, read_json, read_yaml_text
from optkit.untrusted.names import name_text_fault
from optkit.untrusted.paths import exists, is_file

if TYPE_CHECKING:
    from tritonclient.grpc import model_config_pb2 as schema

logger = logging.getLogger(__name__)

_GENERATED = "optkit_handler.py"
_BASE = "base_handler"
_CONTRACT = "contract.json"


@dataclass(frozen=True)
class TorchServeBatching:
    """TorchServe's settings for the workers and batches of a model."""

    batch_size: int
    max_batch_delay_ms: int
    workers: int

    @classmethod
    def of(cls, mar: OpenedMar, store: Path, *, batching: bool) -> "TorchServeBatching":
        """Read model-config.yaml in the archive and config.properties. The former takes precedence, as in TorchServe.

        Args:
            mar: an opened archive.
            store: the config.properties, which need not exist.
            batching: False sets the batch size to 1.

        Raises:
            ArtifactError: a value is invalid, or a file cannot be read.
        """
        installed = installed_models(store)
        names = (mar.archive.name, f"{mar.name}.mar", mar.name)  # a folder and a tar file are named in several ways
        settings = next((installed[name] for name in names if name in installed), {})
        found = {key: (value, str(store)) for key, value in settings.items()}
        config = mar.file("configFile")
        if config:
            where = f"{mar.archive}: {config.name}"
            given = parse_yaml(read_yaml_text(config), where) or {}
            if not isinstance(given, dict):
                raise ArtifactError(f"{where}: is {str(given)[:80]!r}; expected a mapping of key to value")
            found |= {key: (value, where) for key, value in given.items()}
        workers = default_workers(store)
        if workers is not None:
            found.setdefault("minWorkers", (workers, str(store)))
        size = _count(found, "batchSize", 1)
        return cls(size if batching else 1, _count(found, "maxBatchDelay", 100), _count(found, "minWorkers", 1))

    def serving(self, name: str | None) -> TritonServing:
        """Return the settings for a plain model in Triton.

        Raises:
            ArtifactError: Triton has no such name or values.
        """
        with validation_error_as(
            ArtifactError, "the archive's settings for Triton", "Set another --name, or correct the archive."
        ):
            if self.batch_size == 1:
                return TritonServing(name=name, batching=False, instances=Instances(count=self.workers))
            return TritonServing(
                name=name,
                max_batch_size=self.batch_size,
                preferred_batch_sizes=(self.batch_size,),
                max_queue_delay_us=self.max_batch_delay_ms * 1000,
                instances=Instances(count=self.workers),
            )


def _count(found: Mapping[str, tuple[Any, str]], key: str, default: int) -> int:
    value, where = found.get(key, (default, ""))
    least = 0 if key == "maxBatchDelay" else 1
    if type(value) is not int or value < least:
        raise ArtifactError(f"{where}: {key} is {value!r}; expected an integer of at least {least}. Correct the value.")
    return value


def plain_model(mar: OpenedMar, dims: Mapping[str, DimRange], inputs: tuple[TensorSpec, ...]) -> Artifact | None:
    """Return the model as an artifact if its handler only passes tensors to the model, otherwise None.

    Such handlers are TorchServe's `base_handler`, and optkit's generated handler without class names and images.

    Args:
        mar: an opened archive.
        dims: ranges of named dimensions that the archive does not state.
        inputs: input specs for a TorchScript file with `base_handler`; such an archive does not state them.

    Raises:
        StageError: the model's inputs are unknown; the message says how to give them.
        ArtifactError: a file is missing or cannot be read.
    """
    contract = _generated_contract(mar)
    if contract is None and mar.handler.partition(":")[0] != _BASE:
        return None
    model = mar.file("serializedFile")
    if model is None or mar.model.get("modelFile") or model.suffix not in (".onnx", ".pt"):
        return None  # weights that need the user's code to become a model
    if model.suffix == ".pt":
        if fault := zip_fault(model):
            raise ArtifactError(f"{mar.archive}: {model.name}: {fault}")
        message = (
            "%s: %s is TorchScript, which is code: it is loaded and run now. Migrate only archives that you trust."
        )
        logger.warning(message, mar.archive.name, model.name)
    if contract is not None:
        with validation_error_as(ArtifactError, f"{mar.archive}: {_CONTRACT} is not as optkit writes it"):
            return _artifact(model, *contract[:2], contract[2] | dict(dims))
    if model.suffix == ".onnx":
        return onnx_file.describe(model, dims)
    if not inputs:
        raise StageError(
            f"{mar.archive}: {model.name} is TorchScript with base_handler, and neither states the model's inputs; expected input specs. "
            f'Add --input "x:float32[batch,3,224,224]" --dim batch=1:8:64 with your own values.'
        )
    return describe_script(model, inputs, dims)


def package_handler(
    mar: OpenedMar, repository: Path, batching: TorchServeBatching, name: str | None, *, force: bool = False
) -> Packaged:
    """Write a Python model that runs the archive's handler unchanged. The notes list the features that Triton does not have.

    Raises:
        OutputError: the model exists already, or the folder cannot be written. Existing files are unchanged.
    """
    name = model_name(name, mar.name)
    folder = repository / name
    with writing(repository), staging(repository) as temporary:
        if exists(folder) and not force:
            raise OutputError(
                f"{folder}: exists already; expected no such model. Set another --name, or use --force to replace it."
            )
        staged = temporary / name
        shutil.copytree(mar.folder, staged / "1" / "mar")
        code = importlib.resources.files("optkit.serving.migrate").joinpath("handler_model.py").read_bytes()
        (staged / "1" / "model.py").write_bytes(code)
        (staged / "config.pbtxt").write_text(config_text(_handler_config(name, batching)), encoding="utf-8")
        requirements = mar.file("requirementsFile")
        packages = needed_packages(mar.folder)
        image = dockerfile(packages, f"1/mar/{requirements.name}" if requirements else None)
        needs_image = bool(packages or requirements)
        if needs_image:
            (staged / FILE).write_text(image, encoding="utf-8")
        written = files_below(staged)
        move_in([(staged, folder)], temporary)
    return Packaged(
        target="triton",
        name=name,
        version="1",
        path=folder.absolute(),
        files=written,
        notes=(*_not_carried(mar, folder), *([f"{folder / FILE}:\n{image}"] if needs_image else [])),
        command=_command(repository, folder) if needs_image else serve_command(repository, on_gpu=False),
    )


def _command(repository: Path, folder: Path) -> str:
    """Return the command that builds the image of a model and serves the repository in it."""
    tag = f"optkit-{re.sub('[^a-z0-9]+', '-', folder.name.lower()).strip('-') or 'model'}"
    build = f"docker build -t {tag} {shlex.quote(str(folder.absolute()))}"
    return f"{build} && {serve_command(repository, on_gpu=False, image=tag)}"


def _handler_config(name: str, batching: TorchServeBatching) -> "schema.ModelConfig":
    from tritonclient.grpc import model_config_pb2 as schema

    config = schema.ModelConfig(name=name, backend="python")
    config.max_batch_size = batching.batch_size if batching.batch_size > 1 else 0
    for tensor, optional in (("REQUEST", False), ("CONTENT_TYPE", True), ("FIELD", True)):
        config.input.add(name=tensor, data_type=schema.TYPE_STRING, dims=[1], optional=optional)
    config.output.add(name="RESPONSE", data_type=schema.TYPE_STRING, dims=[1])
    config.instance_group.add(count=batching.workers, kind=schema.ModelInstanceGroup.KIND_CPU)
    if config.max_batch_size:
        config.dynamic_batching.preferred_batch_size.append(batching.batch_size)
        config.dynamic_batching.max_queue_delay_microseconds = batching.max_batch_delay_ms * 1000
    return config


def _not_carried(mar: OpenedMar, folder: Path) -> list[str]:
    """Return notes on the differences between TorchServe and Triton that the user must handle."""
    notes = [
        "the input REQUEST holds the request body, and the output RESPONSE holds the response body; both are BYTES"
    ]
    packages = needed_packages(mar.folder)
    if packages:
        notes.append(
            f"the handler needs {', '.join(packages)}, which Triton's image does not have: "
            f"the command builds an image by the {FILE} in the model's folder; EXECUTION_ENV_PATH in config.pbtxt is another way"
        )
    if mar.model.get("requirementsFile"):
        notes.append(f"{mar.model['requirementsFile']} is in the model's folder; the {FILE} installs it")
    notes += _native(mar, folder)
    notes.append(
        f"the handler {mar.handler!r} is code of the archive, which Triton runs: serve only archives that you trust"
    )
    notes.append(
        "the model runs on the CPU; for a GPU, set kind: KIND_GPU in config.pbtxt: the handler then gets the gpu_id"
    )
    notes.append(
        "not available in Triton: response headers, metrics (they go to the log), explanations, response timeout, tokens"
    )
    return notes


def _native(mar: OpenedMar, folder: Path) -> list[str]:
    """Return how the model itself is served without the handler, if it needs no code of the archive."""
    model = mar.file("serializedFile")
    if model is None or mar.model.get("modelFile") or model.suffix not in (".pt", ".onnx"):
        return []
    backend = "ONNX" if model.suffix == ".onnx" else "PyTorch"
    file = shlex.quote(str(folder.absolute() / "1" / "mar" / model.name))
    options = "" if model.suffix == ".onnx" else ' --input "x:float32[batch,3,224,224]"'
    return [
        f"without the handler, Triton's {backend} backend runs the model itself, and batches requests: clients then prepare the "
        f"tensors. Run: optkit package triton {file} -o {shlex.quote(str(folder.parent.absolute()))} --name {folder.name}_native{options} "
        f"--dim batch=1:8:64, with your own values"
    ]


def _generated_contract(
    mar: OpenedMar,
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], dict[str, DimRange]] | None:
    """Return inputs, outputs and ranges from the contract of optkit's handler, or None if the handler does more than pass tensors."""
    path = mar.folder / _CONTRACT
    if mar.handler != _GENERATED or not is_file(path):
        return None
    try:
        contract = read_json(path)
        if contract["classes"] or contract.get("image"):
            return None
        ranges = {name: DimRange(min=low, opt=high, max=high) for name, (low, high) in contract["dims"].items()}
        if fault := next(filter(None, map(name_text_fault, ranges)), None):
            raise ValueError(fault)
        return _specs(contract["inputs"]), _specs(contract["outputs"]), ranges
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ArtifactError(
            f"{mar.archive}: {_CONTRACT} cannot be read ({first_line(e)}); expected the format that optkit writes. "
            f"Package the model again."
        ) from e


def _specs(listed: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec.model_validate(spec) for spec in listed)


def _artifact(
    path: Path, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], dims: dict[str, DimRange]
) -> Artifact:
    files = onnx_file.facts(path).files if path.suffix == ".onnx" else ()
    return Artifact(
        path=path,
        format=Format.ONNX if path.suffix == ".onnx" else Format.TORCHSCRIPT,
        precision=Precision.FP32,  # the archive does not state it, and the repository does not need it
        inputs=inputs,
        outputs=outputs,
        dims=dims,
        sha256=sha256_of(path, *files_beside(path, files)),
        files=files,
    )
