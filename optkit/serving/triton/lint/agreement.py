"""Differences between the model file and the configuration: names, types, dims and batches (T301 to T317)."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from optkit.errors import ArtifactError
from optkit.serving.triton.lint.model_file import FileTensor, FileTensors, read_onnx
from optkit.serving.triton.lint.pbtxt import Edit
from optkit.serving.triton.lint.python_code import read_python
from optkit.serving.triton.lint.repository import Model
from optkit.serving.triton.lint.requirements import needed_packages
from optkit.serving.triton.lint.rules import Problem, without_fix
from optkit.serving.triton.lint.supplied import Supplied, supplied
from optkit.serving.triton.lint.torchscript import check_torchscript
from optkit.untrusted.paths import is_file, is_folder, name_fault


def check_agreement(model: Model, models: Mapping[str, Model]) -> Iterator[Problem]:
    """Yield the differences between the configuration and the model files of the loaded versions; `models` are all models."""
    if model.config is None or model.filename is None or name_fault(model.filename):
        return  # T118 reports a path outside the folder; the file is not read
    found: dict[tuple[str, str], Problem] = {}  # each problem once, not for each version
    versions = 0
    seen: dict[tuple[str, str], int] = {}
    for folder in model.loaded.values():
        path = folder / model.filename
        if not (is_file(path) or is_folder(path)):
            continue  # T113 reports this
        versions += 1
        for one in _differences(model, path, models):
            key = (one.finding.rule, one.finding.message)
            found.setdefault(key, one)
            seen[key] = seen.get(key, 0) + 1
    for key, one in found.items():
        # Where versions differ, a correction for one is a mistake for another.
        yield one if seen[key] == versions else without_fix(one)


def _differences(model: Model, path: Path, models: Mapping[str, Model]) -> list[Problem]:
    try:
        if _is_pointer(path):
            return [model.file_fault("T308", "is a pointer of Git LFS, not the model. Run: git lfs pull", path)]
        if model.backend == "onnxruntime":
            return list(_onnx(model, path))
        if model.backend == "pytorch" and model.platform != "torch_aoti":
            return list(check_torchscript(model, path))
        if model.backend == "python":
            return list(_python(model, path, models))
    except ArtifactError as e:
        rule = "T310" if model.backend == "python" else "T308"
        return [model.file_fault(rule, str(e).replace(f"{path}: ", ""), path)]
    return []


def _is_pointer(path: Path) -> bool:
    """Return whether a file holds the address of a model in Git LFS, because the model was not downloaded."""
    start = b"version https://git-lfs.github.com/spec/"
    if not is_file(path):
        return False
    with path.open("rb") as file:
        return file.read(len(start)) == start


def _onnx(model: Model, path: Path) -> Iterator[Problem]:
    assert model.config is not None
    own = read_onnx(path / "model.onnx" if is_folder(path) else path)
    batched = _batches(model, own)
    yield from _operators(model, own, path)
    extra = list(supplied(model.config))
    for kind, declared, found in (
        ("input", model.config.input, own.inputs),
        ("output", model.config.output, own.outputs),
    ):
        by_name = {tensor.name: tensor for tensor in found}
        names = {tensor.name for tensor in declared} | {tensor.name for tensor in extra if tensor.kind == kind}
        known = all(name in by_name for name in names)
        for i, tensor in enumerate(declared):
            if not tensor.name:
                continue
            if tensor.name not in by_name:
                said = f"{kind} {tensor.name!r}: the model has {', '.join(by_name) or 'none'}"
                yield model.fault("T301", said, kind, i, "name")
            else:
                yield from _tensor(model, kind, i, tensor, by_name[tensor.name], batched)
                if kind == "input" and tensor.optional:
                    yield from _optional(model, i, tensor, by_name[tensor.name])
        for part in extra:
            if part.kind == kind:
                yield from _supplied(model, part, by_name, batched)
        for tensor in found if declared and known else ():
            if tensor.name not in names and tensor.needed:
                yield model.fault("T302" if kind == "input" else "T303", f"{kind} {tensor.name!r} of {path.name}", kind)


def _operators(model: Model, own: FileTensors, path: Path) -> Iterator[Problem]:
    assert model.config is not None
    if own.custom_operators and not model.config.model_operations.op_library_filename:
        said = f"has {', '.join(own.custom_operators[:4])}, and model_operations registers no library"
        yield model.file_fault("T317", said, path)


def _batches(model: Model, own: FileTensors) -> bool:
    """Return whether the served model batches. The backend sets max_batch_size when it completes inputs or outputs."""
    config = model.config
    assert config is not None
    if config.max_batch_size or (config.input and config.output):
        return bool(config.max_batch_size > 0)
    return all(tensor.shape is not None and tensor.shape[:1] == (-1,) for tensor in (*own.inputs, *own.outputs))


def _optional(model: Model, i: int, tensor: Any, own: FileTensor) -> Iterator[Problem]:
    """Check an optional input: the backend takes only one that has a default value in the file, and only without batching."""
    assert model.config is not None
    if own.needed:
        said = f"input {tensor.name!r} is optional; in the model it has no default value (initializer)"
        yield model.fault("T302", said, "input", i, "optional")
    elif model.config.max_batch_size:
        said = f"input {tensor.name!r} is optional; the backend allows this only with max_batch_size 0"
        yield model.fault("T302", said, "input", i, "optional")


def _supplied(model: Model, tensor: Supplied, by_name: Mapping[str, FileTensor], batched: bool) -> Iterator[Problem]:
    """Compare a tensor that Triton supplies with the model file."""
    from tritonclient.grpc import model_config_pb2 as schema

    where = f"{tensor.what} {tensor.name!r}"
    if tensor.name not in by_name:
        if tensor.name:  # T219 reports a control without a name
            said = f"{where}: the model has {tensor.kind}s {', '.join(by_name) or 'none'}"
            yield model.fault("T301", said, *tensor.path)
        return
    own = by_name[tensor.name]
    declared = schema.DataType.Name(tensor.data_type)
    if tensor.data_type and declared != own.data_type:
        yield model.fault("T304", f"{where} is {declared}; the model has {own.data_type}", *tensor.path)
    if own.shape is None or tensor.dims is None:
        return
    shape = own.shape[1:] if batched else own.shape
    fits = len(shape) == len(tensor.dims) and all(
        a == b or -1 in (a, b) for a, b in zip(shape, tensor.dims, strict=True)
    )
    if not fits:
        said = f"{where} has dims {list(tensor.dims)}; the model has {list(own.shape)}"
        yield model.fault("T305", said, *tensor.path)


def _tensor(model: Model, kind: str, i: int, tensor: Any, own: FileTensor, batched: bool) -> Iterator[Problem]:
    from tritonclient.grpc import model_config_pb2 as schema

    declared = schema.DataType.Name(tensor.data_type)
    if tensor.data_type and declared != own.data_type:
        value = model.tree.find(kind, i, "data_type")
        edits = (Edit(value.start, value.end, own.data_type),) if value else ()
        said = f"{kind} {tensor.name!r}: declared {declared}; the model has {own.data_type}"
        yield model.fault("T304", said, kind, i, "data_type", edits=edits)
    if own.shape is not None and tensor.dims and all(dim > 0 or dim == -1 for dim in tensor.dims):
        if kind == "input" and tensor.allow_ragged_batch:
            yield from _ragged(model, i, tensor, own.shape)
        elif kind == "input" or not _scattered(model, tensor.name):
            yield from _dims(model, kind, i, tensor, own.shape, batched)


def _ragged(model: Model, i: int, tensor: Any, own: tuple[int, ...]) -> Iterator[Problem]:
    """Check a ragged input: the backend joins the requests to one row of elements."""
    if own != (-1,):
        said = f"input {tensor.name!r} allows ragged batches; the model has {list(own)}, expected [-1]"
        yield model.fault("T305", said, "input", i, "allow_ragged_batch")


def _scattered(model: Model, name: str) -> bool:
    """Return whether batch_output gives the shape of an output."""
    assert model.config is not None
    return any(name in batch.target_name for batch in model.config.batch_output)


def _dims(model: Model, kind: str, i: int, tensor: Any, own: tuple[int, ...], batched: bool) -> Iterator[Problem]:
    """Compare shapes like Triton's ONNX backend: a dynamic dimension of the model may be fixed in dims, but not the reverse."""
    assert model.config is not None
    reshaped = tensor.HasField("reshape")
    dims = list(tensor.reshape.shape if reshaped else tensor.dims)
    where = f"{kind} {tensor.name!r}"
    if not batched:
        scalar = not own and set(dims) == {1}  # Triton has no empty dims; the backend accepts ones for a scalar
        if not (scalar or _fits(dims, own)):
            said = f"{where}: dims {dims}; the model has {list(own)}"
            edits = _new_dims(model, kind, i, own, reshaped or len(dims) != len(own))
            yield model.fault("T305", said, kind, i, "dims", edits=edits)
        return
    if not own or own[0] != -1:
        batch = own[0] if own else "no"
        said = (
            f"{where}: max_batch_size is {model.config.max_batch_size}; the model {list(own)} has {batch} as its batch"
        )
        yield model.fault("T307", said, kind, i)
    elif _fits(dims, own[1:]):
        return
    elif len(dims) == len(own) and _fits(dims[1:], own[1:]):
        said = f"{where}: dims {dims} contain the batch dimension; the model has {list(own)}"
        edits = _new_dims(model, kind, i, dims[1:], reshaped or len(dims) == 1)
        yield model.fault("T306", said, kind, i, "dims", edits=edits)
    else:
        said = f"{where}: dims {dims}; the model has {list(own[1:])} after the batch dimension"
        edits = _new_dims(model, kind, i, own[1:], reshaped or len(dims) != len(own) - 1)
        yield model.fault("T305", said, kind, i, "dims", edits=edits)


def _fits(dims: Sequence[int], own: Sequence[int]) -> bool:
    return len(dims) == len(own) and all(b in (-1, a) for a, b in zip(dims, own, strict=True))


def _new_dims(model: Model, kind: str, i: int, dims: Sequence[int], doubtful: bool) -> tuple[Edit, ...]:
    """Return the edits that replace dims, or none if the correct dims are not certain.

    With a reshape, or another number of dims, the field that is wrong can be the reshape or max_batch_size.
    """
    message = model.tree.find(kind, i)
    if doubtful or message is None or not dims:
        return ()
    return tuple(model.tree.replace_list(message, "dims", dims))


def _python(model: Model, path: Path, models: Mapping[str, Model]) -> Iterator[Problem]:
    assert model.config is not None
    used = read_python(path)
    config = model.config
    extra = list(supplied(config))
    for kind, names, declared in (("input", used.inputs, config.input), ("output", used.outputs, config.output)):
        known = {tensor.name for tensor in declared}
        known |= {tensor.name for tensor in extra if tensor.kind == kind} if known else set()
        for name, line in names.items() if known else ():
            if name in known:
                continue
            said = f"uses {kind} {name!r}; declared: {', '.join(sorted(known))}"
            if used.completes:
                yield model.file_fault("T102", f"{said}: completed when the model loads, not checked", path, line)
            else:
                yield model.file_fault("T311", said, path, line)
    for name, line in used.calls.items():
        if name not in models:
            there = ", ".join(other for other in models if other != model.name) or "none"
            said = f"calls model {name!r}, which is not in the repository; expected one of {there}"
            yield model.file_fault("T315", said, path, line)
    if "EXECUTION_ENV_PATH" not in config.parameters and (packages := needed_packages(path.parent / "mar")):
        said = f"the handler needs {', '.join(packages)}, which Triton's image does not have"
        yield model.file_fault("T316", said, path)
    if used.list_at is not None and config.model_transaction_policy.decoupled:
        said = "execute returns a list, but the model is decoupled; expected None, and responses by their sender"
        yield model.file_fault("T314", said, path, used.list_at)
