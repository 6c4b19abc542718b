"""`optkit package`: package model files and Python functions for Triton or TorchServe."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ValidationError

from optkit import user_code
from optkit.api.arguments import (
    Data,
    Dims,
    Inputs,
    ModelFile,
    Progress,
    StrPath,
    ToFeed,
    as_dims,
    as_inputs,
    call,
    model_path,
    samples_of,
    settings,
)
from optkit.api.packagable import Packagable, open_packagable
from optkit.artifact import Artifact, Format, Passport
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.checks import check_batch_independence
from optkit.data import Samples
from optkit.data.preprocessing import ImagePreprocessing
from optkit.errors import ModelError, OutputError, RecipeError
from optkit.record import Document, faults
from optkit.runners import open_runner
from optkit.serving import (
    ArtifactServing,
    Instances,
    Packaged,
    QueuePolicy,
    TorchServeServing,
    TritonPythonServing,
    TritonServing,
    VersionPolicy,
    package_function,
)
from optkit.serving.targets import package
from optkit.system.temporary import temporary_folder
from optkit.untrusted.paths import is_file, user_path
from optkit.untrusted.reading import MAX_NAMES_BYTES, read_text


class PackageRecord(Document):
    """The packages that one command wrote."""

    schema_id: ClassVar[str] = "optkit/package/1"

    packages: tuple[Packaged, ...]


def package_triton(
    models: ModelFile | Sequence[ModelFile],
    repository: StrPath,
    *,
    name: str | None = None,
    version: int = 1,
    batching: bool = True,
    preferred_batch_sizes: Sequence[int] = (),
    max_queue_delay_us: int = 0,
    instances: int = 1,
    gpus: Sequence[int] = (),
    keep_versions: int = 1,
    max_batch_size: int | None = None,
    max_queue_size: int | None = None,
    queue_timeout_us: int | None = None,
    response_cache: bool = False,
    warmup: bool = True,
    client: bool = True,
    inputs: Inputs | None = None,
    dims: Dims | None = None,
    data: Data | None = None,
    to_feed: ToFeed | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> PackageRecord:
    """Write models to a Triton model repository. Existing versions stay.

    Args:
        models: ONNX, TorchScript or .pt2 models; or TensorRT engines of one model, one for each GPU type.
        repository: Triton model repository; it is created if it does not exist.
        name: name of the model on the server; None uses the name of the file.
        version: version folder.
        batching: let the server batch requests, after a check that batching does not change the outputs.
        preferred_batch_sizes: preferred batch sizes, for example [8, 64]; empty sets none.
        max_queue_delay_us: maximum time that a request waits for a batch, in microseconds.
        instances: model instances on each device.
        gpus: numbers of the GPUs to run on, for example [0, 1]; empty runs on the CPU.
        keep_versions: number of latest versions to serve; 0 serves all.
        max_batch_size: largest batch size; None uses the declared maximum.
        max_queue_size: maximum number of waiting requests; None sets no limit.
        queue_timeout_us: maximum time that a request waits before it is rejected, in microseconds; None sets no limit.
        response_cache: let the server cache responses.
        warmup: run a sample while the model loads.
        client: write a Python client to `REPOSITORY_clients/NAME`.
        inputs: inputs of a TorchScript model without a passport, for example `{"image": "float32[batch,3,224,224]"}`.
        dims: range of each named dimension as (min, opt, max), for example `{"batch": (1, 8, 64)}`; needed only if the passport has none.
        data: real samples for golden samples and warm-up; None uses seeded random values.
        to_feed: function that converts one item of `data` to a feed.
        force: replace an existing version with other content.
        progress: callback `progress(description, done, total)` for long loops; `total` is None if it is unknown.

    Returns:
        the packages and their paths.

    Raises:
        OptkitError: a model cannot be packaged with these settings or cannot be written; earlier models stay packaged.
    """
    files = [models] if isinstance(models, (str, os.PathLike, Passport, Artifact)) else list(models)
    if name and len(files) > 1 and any(model_path(file).suffix != ".plan" for file in files):
        raise RecipeError(f"--name {name}: names one model, but {len(files)} were given. Package them one by one.")
    queue = settings(QueuePolicy, max_size=max_queue_size or 0, timeout_us=queue_timeout_us or 0)
    serving = settings(
        TritonServing,
        name=name,
        version=version,
        batching=batching,
        preferred_batch_sizes=tuple(preferred_batch_sizes),
        max_queue_delay_us=max_queue_delay_us,
        instances=settings(Instances, count=instances, kind="gpu" if gpus else "cpu", gpus=tuple(gpus)),
        version_policy=settings(VersionPolicy, latest=keep_versions or None, all=keep_versions == 0),
        max_batch_size=max_batch_size,
        queue=queue if max_queue_size or queue_timeout_us else None,
        response_cache=response_cache,
        warmup=warmup,
        client=client,
    )
    with temporary_folder() as made, call(progress) as api_call:
        opened = [open_packagable(file, dims, inputs, made / str(i)) for i, file in enumerate(files)]
        return _with_notes(opened, Path(repository), serving, api_call.data(data, to_feed), force)


def package_torchserve(
    model: ModelFile,
    model_store: StrPath,
    *,
    name: str | None = None,
    version: str = "1.0",
    handler: StrPath | None = None,
    extra_files: Sequence[StrPath] = (),
    requirements: StrPath | None = None,
    image: Mapping[str, Any] | None = None,
    class_names: StrPath | Sequence[str] | None = None,
    workers: int = 1,
    batch_size: int = 1,
    max_batch_delay_ms: int = 100,
    client: bool = True,
    inputs: Inputs | None = None,
    dims: Dims | None = None,
    data: Data | None = None,
    to_feed: ToFeed | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> PackageRecord:
    """Write a TorchServe archive (.mar) and its config.properties.

    Args:
        model: TorchScript, ONNX or .pt2 model.
        model_store: folder of archives; it is created if it does not exist.
        name: name of the model on the server; None uses the name of the file.
        version: version of the model.
        handler: your own handler file; None generates one.
        extra_files: files to add to the archive.
        requirements: requirements.txt to add to the archive.
        image: preprocessing of images, if requests are images, for example `{"resize": 256, "crop": 224}`.
        class_names: class names, or a text file with one class per line.
        workers: number of worker processes.
        batch_size: maximum number of requests in a batch.
        max_batch_delay_ms: maximum time that a request waits for a batch, in milliseconds.
        client: write a Python client to `MODEL_STORE_clients/NAME`.
        inputs: inputs of a TorchScript model without a passport, for example `{"image": "float32[batch,3,224,224]"}`.
        dims: range of each named dimension as (min, opt, max), for example `{"batch": (1, 8, 64)}`; needed only if the passport has none.
        data: real samples for golden samples; None uses seeded random values.
        to_feed: function that converts one item of `data` to a feed.
        force: replace an existing archive with other content.
        progress: callback `progress(description, done, total)` for long loops; `total` is None if it is unknown.

    Returns:
        the packages and their paths.

    Raises:
        OptkitError: the model cannot be packaged with these settings, or the archive cannot be written.
    """
    serving = settings(
        TorchServeServing,
        name=name,
        version=version,
        handler=_absolute(handler),
        extra_files=tuple(str(Path(path).absolute()) for path in extra_files),
        requirements=_absolute(requirements),
        image=_preprocessing(image) if image else None,
        class_names=_class_names(class_names) if class_names is not None else None,
        workers=workers,
        batch_size=batch_size,
        max_batch_delay_ms=max_batch_delay_ms,
        client=client,
    )
    with temporary_folder() as made, call(progress) as api_call:
        opened = open_packagable(model, dims, inputs, made / "0")
        return _with_notes([opened], Path(model_store), serving, api_call.data(data, to_feed), force)


def package_triton_python(
    function: str | Callable[..., Any],
    repository: StrPath,
    *,
    inputs: Inputs,
    returns: Inputs,
    dims: Dims | None = None,
    data: StrPath | None = None,
    extra_files: Sequence[StrPath] = (),
    name: str | None = None,
    version: int = 1,
    batching: bool = True,
    max_batch_size: int | None = None,
    preferred_batch_sizes: Sequence[int] = (),
    max_queue_delay_us: int = 0,
    instances: int = 1,
    warmup: bool = True,
    client: bool = True,
    force: bool = False,
    progress: Progress | None = None,
) -> PackageRecord:
    """Write a Python function as a model to a Triton model repository, after a check that it matches its declaration.

    Args:
        function: function that takes and returns a mapping of name to array: `"file.py:function"`, or a function defined in a file.
        repository: Triton model repository; it is created if it does not exist.
        inputs: inputs of the function, for example `{"pixels": "uint8[batch,8,8]"}`.
        returns: outputs of the function, in the same form.
        dims: range of each named dimension as (min, opt, max), for example `{"batch": (1, 8, 64)}`.
        data: data source with real samples, as the command line takes it; None uses seeded random values.
        extra_files: files that the function reads from the folder of its code.
        name: name of the model on the server; None uses the name of the function.
        version: version folder.
        batching: let the server batch requests, after a check that batching does not change the outputs.
        max_batch_size: largest batch size; None uses the declared maximum.
        preferred_batch_sizes: preferred batch sizes, for example [8, 64]; empty sets none.
        max_queue_delay_us: maximum time that a request waits for a batch, in microseconds.
        instances: model instances.
        warmup: run a sample while the model loads.
        client: write a Python client to `REPOSITORY_clients/NAME`.
        force: replace an existing version with other content.
        progress: callback `progress(description, done, total)` for long loops; `total` is None if it is unknown.

    Returns:
        the packages and their paths.

    Raises:
        OptkitError: the function cannot be packaged with these settings or cannot be written; nothing was changed.
    """
    serving = settings(
        TritonPythonServing,
        function=function if isinstance(function, str) else _target_of(function),
        inputs=_text(as_inputs(inputs)),
        outputs=_text(as_inputs(returns, "--returns")),
        data=str(data) if data else None,
        extra_files=tuple(map(str, extra_files)),
        name=name,
        version=version,
        batching=batching,
        max_batch_size=max_batch_size,
        preferred_batch_sizes=tuple(preferred_batch_sizes),
        max_queue_delay_us=max_queue_delay_us,
        instances=settings(Instances, count=instances),
        warmup=warmup,
        client=client,
    ).with_absolute_paths(Path())
    with call(progress):
        return package_python(serving, Path(repository), as_dims(dims), force)


def _with_notes(
    models: Sequence[Packagable], folder: Path, serving: ArtifactServing, data: str | None, force: bool
) -> PackageRecord:
    done = package_files([model.passport for model in models], folder, serving, data, force)
    noted = zip(done.packages, models, strict=False)  # engines of one model are one package, and have no notes
    return PackageRecord(
        packages=tuple(one.model_copy(update={"notes": (*one.notes, *model.notes)}) for one, model in noted)
    )


def _absolute(path: StrPath | None) -> str | None:
    return str(user_path(path).absolute()) if path else None


def _text(specs: Sequence[TensorSpec]) -> dict[str, str]:
    return {spec.name: spec.type_text for spec in specs}


def _target_of(function: Callable[..., Any]) -> str:
    """Return the target of a function that is defined in a file; the server imports that file.

    Raises:
        ModelError: the function is not defined in a file.
    """
    try:
        file = inspect.getsourcefile(function)
    except TypeError:  # a built-in function or an instance
        file = None
    name = getattr(function, "__qualname__", type(function).__name__)
    target = f"{file}:{name}"
    if file is None or not is_file(file) or not name.isidentifier() or user_code.target_fault(target):
        raise ModelError(
            f"function {name}: is not defined in a file, but the server imports it from a file. Save it in a file, and give 'file.py:{name}'."
        )
    return target


def _preprocessing(image: Mapping[str, Any]) -> ImagePreprocessing:
    try:
        return ImagePreprocessing.model_validate(dict(image))
    except ValidationError as e:
        raise RecipeError("; ".join(f"--image {line.removeprefix('document: ')}" for line in faults(e))) from e


def _class_names(names: StrPath | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(names, (str, os.PathLike)):
        return tuple(names)
    lines = read_text(Path(names), "class names, one a line", MAX_NAMES_BYTES, RecipeError).splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def _name_of(path: Path) -> str:
    """Return the name of a model: that of its file without the suffix. `net.v1.onnx` and `net.v2.onnx` are two models."""
    return path.stem


def package_files(
    passports: Sequence[Passport], folder: Path, serving: ArtifactServing, data: str | None, force: bool
) -> PackageRecord:
    """Package model files; without a name in the settings, each model gets the name of its file.

    Batch independence is read from the passport, or checked now if the passport has no result.

    Raises:
        OptkitError: a model cannot be packaged; earlier models stay packaged.
    """
    others: tuple[Artifact, ...] = ()
    if len(passports) > 1 and all(passport.artifact.format is Format.TENSORRT for passport in passports):
        others = tuple(passport.artifact for passport in passports[1:])  # one model for several GPUs
        passports = passports[:1]
    names = [serving.name or _name_of(passport.artifact.path) for passport in passports]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise OutputError(
            f"{folder}: {names.count(twice)} models would be named {twice!r}. Package them one by one with --name."
        )
    packages = []
    for passport, name in zip(passports, names, strict=True):
        artifact = passport.artifact
        samples = samples_of(artifact, data)
        if passport.batch_independence is None and serving.batches and artifact.format is not Format.TENSORRT:
            with open_runner(artifact) as runner:
                found = check_batch_independence(runner, samples, artifact.dims)
            passport = passport.model_copy(update={"batch_independence": found})
        packages.append(package(passport, folder, serving, name=name, samples=samples, force=force, others=others))
    return PackageRecord(packages=tuple(packages))


def package_python(
    serving: TritonPythonServing, folder: Path, dims: Mapping[str, DimRange], force: bool
) -> PackageRecord:
    """Check a function and package it as a Python model.

    Raises:
        OptkitError: the function cannot be packaged with these settings or cannot be written; nothing was changed.
    """
    samples = Samples.of(serving.data, serving.inputs, dims)
    return PackageRecord(packages=(package_function(serving, folder, dims, samples, force=force),))
