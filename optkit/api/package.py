"""`optkit package`: model files and Python functions, into a Triton repository or a TorchServe model store."""

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
    open_model_passport,
    samples_of,
    settings,
)
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
from optkit.untrusted.paths import is_file, user_path
from optkit.untrusted.reading import MAX_NAMES_BYTES, read_text


class PackageRecord(Document):
    """What one command packaged."""

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
    dims: Dims | None = None,
    data: Data | None = None,
    to_feed: ToFeed | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> PackageRecord:
    """Write models into a Triton model repository; versions that are there already stay.

    Args:
        models: ONNX or TorchScript files; or TensorRT engines of one model, one for each kind of GPU.
        repository: the folder of models; made if need be.
        name: of the model on the server; None takes that of the file.
        version: the version folder.
        batching: let the server put requests together, where that is proven to change no answer.
        preferred_batch_sizes: sizes of batches that the server sends at once.
        max_queue_delay_us: how long a request may wait for others.
        instances: copies of the model on each device.
        gpus: the numbers of the GPUs to run on; none: the CPU.
        keep_versions: how many of the latest versions are served; 0 serves all.
        max_batch_size: None takes the largest declared size.
        max_queue_size: how many requests may wait; None: any.
        queue_timeout_us: how long a request may wait before it is refused; None: for ever.
        response_cache: let the server answer equal requests from its cache.
        warmup: run a sample when the model is loaded.
        client: write a Python client to `REPOSITORY_clients/NAME`.
        dims: the range of each named dimension, as `{"batch": (1, 8, 64)}`, where no passport has it.
        data: real samples for the warm-up and the golden samples; without any, seeded random values.
        to_feed: makes a feed of one item of `data`.
        force: replace a version that is there with other content.
        progress: is called with what is done, how many turns are done, and of how many.

    Returns:
        what was packaged, and where.

    Raises:
        OptkitError: a model cannot be packaged so, or not be written; those before it are there.
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
    with call(progress) as given:
        opened = [open_model_passport(file, dims) for file in files]
        return package_files(opened, Path(repository), serving, given.data(data, to_feed), force)


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
    dims: Dims | None = None,
    data: Data | None = None,
    to_feed: ToFeed | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> PackageRecord:
    """Write a TorchServe archive (.mar) and its config.properties.

    Args:
        model: a TorchScript or ONNX file.
        model_store: the folder of archives; made if need be.
        name: of the model on the server; None takes that of the file.
        version: of the model.
        handler: your own handler; None writes one.
        extra_files: files to add.
        requirements: a requirements.txt to add.
        image: where requests are images, how one becomes the input, as `{"resize": 256, "crop": 224}`.
        class_names: the classes, or a text file with one a line.
        workers: worker processes.
        batch_size: how many requests are put together.
        max_batch_delay_ms: how long a request may wait for others.
        client: write a Python client to `MODEL_STORE_clients/NAME`.
        dims: the range of each named dimension, as `{"batch": (1, 8, 64)}`, where no passport has it.
        data: real samples for the golden samples; without any, seeded random values.
        to_feed: makes a feed of one item of `data`.
        force: replace an archive that is there with other content.
        progress: is called with what is done, how many turns are done, and of how many.

    Returns:
        what was packaged, and where.

    Raises:
        OptkitError: the model cannot be packaged so, or not be written.
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
    with call(progress) as given:
        opened = open_model_passport(model, dims)
        return package_files([opened], Path(model_store), serving, given.data(data, to_feed), force)


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
    """Write a Python function as a model of a Triton repository, after proving that it keeps what is declared.

    Args:
        function: takes and returns a mapping of name to array; `"file.py:function"`, or a function that stands in a file.
        repository: the folder of models; made if need be.
        inputs: what it takes, as `{"pixels": "uint8[batch,8,8]"}`.
        returns: what it returns, in the same form.
        dims: the range of each named dimension, as `{"batch": (1, 8, 64)}`.
        data: real samples in a file, for the package is proven again from them; without any, seeded random values.
        extra_files: files that the function reads beside its code.
        name: of the model on the server; None takes that of the function.
        version: the version folder.
        batching: let the server put requests together, where that is proven to change no answer.
        max_batch_size: None takes the largest declared size.
        preferred_batch_sizes: sizes of batches that the server sends at once.
        max_queue_delay_us: how long a request may wait for others.
        instances: copies of the model.
        warmup: run a sample when the model is loaded.
        client: write a Python client to `REPOSITORY_clients/NAME`.
        force: replace a version that is there with other content.
        progress: is called with what is done, how many turns are done, and of how many.

    Returns:
        what was packaged, and where.

    Raises:
        OptkitError: it cannot be packaged so, or not be written; nothing was changed.
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


def _absolute(path: StrPath | None) -> str | None:
    return str(user_path(path).absolute()) if path else None


def _text(specs: Sequence[TensorSpec]) -> dict[str, str]:
    return {spec.name: spec.type_text for spec in specs}


def _target_of(function: Callable[..., Any]) -> str:
    """Return the target of a function that stands in a file; the server imports that file, and nothing of this process.

    Raises:
        ModelError: it stands in none.
    """
    try:
        file = inspect.getsourcefile(function)
    except TypeError:  # built in, or an instance
        file = None
    name = getattr(function, "__qualname__", type(function).__name__)
    target = f"{file}:{name}"
    if file is None or not is_file(file) or not name.isidentifier() or user_code.target_fault(target):
        raise ModelError(
            f"function {name}: stands in no file, and a server imports files. Save it, and give 'file.py:{name}'."
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


def package_files(
    passports: Sequence[Passport], folder: Path, serving: ArtifactServing, data: str | None, force: bool
) -> PackageRecord:
    """Package files that somebody has, each under the name of its file where the settings give none.

    Batch independence is taken from the passport, and checked now where it holds none.

    Raises:
        OptkitError: one of them cannot be packaged; those before it are there.
    """
    others: tuple[Artifact, ...] = ()
    if len(passports) > 1 and all(passport.artifact.format is Format.TENSORRT for passport in passports):
        others = tuple(passport.artifact for passport in passports[1:])  # one model for several GPUs
        passports = passports[:1]
    names = [serving.name or passport.artifact.path.name.partition(".")[0] for passport in passports]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise OutputError(
            f"{folder}: {names.count(twice)} models would be named {twice!r}. Package them one by one with --name."
        )
    done = []
    for passport, name in zip(passports, names, strict=True):
        artifact = passport.artifact
        samples = samples_of(artifact, data)
        if passport.batch_independence is None and serving.batches and artifact.format is not Format.TENSORRT:
            with open_runner(artifact) as runner:
                found = check_batch_independence(runner, samples, artifact.dims)
            passport = passport.model_copy(update={"batch_independence": found})
        done.append(package(passport, folder, serving, name=name, samples=samples, force=force, others=others))
    return PackageRecord(packages=tuple(done))


def package_python(
    serving: TritonPythonServing, folder: Path, dims: Mapping[str, DimRange], force: bool
) -> PackageRecord:
    """Prove a function and package it as a Python model.

    Raises:
        OptkitError: it cannot be packaged so, or not be written; nothing was changed.
    """
    samples = Samples.of(serving.data, serving.inputs, dims)
    return PackageRecord(packages=(package_function(serving, folder, dims, samples, force=force),))
