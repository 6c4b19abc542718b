"""Differences between the model file and the configuration: names, types, dims and batches (T301 to T311)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from optkit.errors import ArtifactError
from optkit.serving.triton.lint.model_file import FileTensor, read_onnx, read_python, read_torchscript
from optkit.serving.triton.lint.pbtxt import Edit
from optkit.serving.triton.lint.repository import Model
from optkit.serving.triton.lint.rules import Problem
from optkit.untrusted.paths import is_file, is_folder, name_fault


def check_agreement(model: Model) -> Iterator[Problem]:
    """Yield the differences between the configuration and the model files of the loaded versions."""
    config = model.config
    if config is None or model.filename is None or name_fault(model.filename):
        return  # T118 reports a path outside the folder; the file is not read
    check = {"onnxruntime": _onnx, "pytorch": _torchscript, "python": _python}.get(model.backend)
    reported: set[tuple[str, str]] = set()  # each problem is reported once, not for each version
    for folder in model.loaded.values() if check else ():
        path = folder / model.filename
        if not (is_file(path) or is_folder(path)):
            continue  # T113 reports this
        try:
            problems = list(check(model, path)) if check else []
        except ArtifactError as e:
            rule = "T310" if model.backend == "python" else "T308"
            problems = [model.file_fault(rule, str(e).replace(f"{path}: ", ""), path)]
        for found in problems:
            key = (found.finding.rule, found.finding.message)
            if key not in reported:
                reported.add(key)
                yield found


def _onnx(model: Model, path: Path) -> Iterator[Problem]:
    assert model.config is not None
    own = read_onnx(path / "model.onnx" if is_folder(path) else path)
    for kind, declared, found in (
        ("input", model.config.input, own.inputs),
        ("output", model.config.output, own.outputs),
    ):
        by_name = {tensor.name: tensor for tensor in found}
        names = {tensor.name for tensor in declared}
        for i, tensor in enumerate(declared):
            if not tensor.name:
                continue
            if tensor.name not in by_name:
                said = f"{kind} {tensor.name!r}: the model has {', '.join(by_name) or 'none'}"
                yield model.fault("T301", said, kind, i, "name")
            else:
                yield from _tensor(model, kind, i, tensor, by_name[tensor.name])
        known = all(tensor.name in by_name for tensor in declared)
        for tensor in found if declared and known else ():
            if tensor.name not in names and tensor.needed:
                yield model.fault("T302" if kind == "input" else "T303", f"{kind} {tensor.name!r} of {path.name}", kind)


def _tensor(model: Model, kind: str, i: int, tensor: Any, own: FileTensor) -> Iterator[Problem]:
    from tritonclient.grpc import model_config_pb2 as schema

    declared = schema.DataType.Name(tensor.data_type)
    if tensor.data_type and declared != own.data_type:
        value = model.tree.find(kind, i, "data_type")
        edits = (Edit(value.start, value.end, own.data_type),) if value else ()
        said = f"{kind} {tensor.name!r}: declared {declared}; the model has {own.data_type}"
        yield model.fault("T304", said, kind, i, "data_type", edits=edits)
    if own.shape is not None and tensor.dims and all(dim > 0 or dim == -1 for dim in tensor.dims):
        yield from _dims(model, kind, i, tensor, own.shape)


def _dims(model: Model, kind: str, i: int, tensor: Any, own: tuple[int, ...]) -> Iterator[Problem]:
    """Compare shapes like Triton's ONNX backend: a dynamic dimension of the model may be fixed in dims, but not the reverse."""
    assert model.config is not None
    batched = model.config.max_batch_size > 0
    reshaped = tensor.HasField("reshape")
    dims = list(tensor.reshape.shape if reshaped else tensor.dims)
    where = f"{kind} {tensor.name!r}"
    if not batched:
        scalar = not own and dims == [1]  # Triton has no empty dims; the backend accepts [1] for a scalar
        if not (scalar or _fits(dims, own)):
            said = f"{where}: dims {dims}; the model has {list(own)}"
            yield model.fault("T305", said, kind, i, "dims", edits=_new_dims(model, kind, i, own, reshaped))
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
        yield model.fault("T305", said, kind, i, "dims", edits=_new_dims(model, kind, i, own[1:], reshaped))


def _fits(dims: Sequence[int], own: Sequence[int]) -> bool:
    return len(dims) == len(own) and all(b in (-1, a) for a, b in zip(dims, own, strict=True))


def _new_dims(model: Model, kind: str, i: int, dims: Sequence[int], reshaped: bool) -> tuple[Edit, ...]:
    """Return the edits that replace dims, or none if the correct dims are not certain because of a reshape or a scalar."""
    message = model.tree.find(kind, i)
    if reshaped or message is None or not dims:
        return ()
    return tuple(model.tree.replace_list(message, "dims", dims))


def _torchscript(model: Model, path: Path) -> Iterator[Problem]:
    """Check names by the rules of https://github.com/triton-inference-server/pytorch_backend: forward's arguments, or NAME__index."""
    assert model.config is not None
    forward = read_torchscript(path)
    names = [tensor.name for tensor in model.config.input]
    for i, name in enumerate(names):
        if name not in forward.arguments and not _indexed(name, len(forward.arguments)):
            said = f"input {name!r}: forward takes {', '.join(forward.arguments) or 'nothing'}"
            yield model.fault("T309", said, "input", i, "name")
    if names and len(names) < len(forward.arguments):
        said = f"{len(names)} inputs are declared; forward takes {', '.join(forward.arguments)}"
        yield model.fault("T302", said, "input")
    for i, tensor in enumerate(model.config.output):
        if not _indexed(tensor.name, forward.returned):
            count = "" if forward.returned is None else f"; forward returns {forward.returned}"
            yield model.fault("T309", f"output {tensor.name!r} has no index{count}", "output", i, "name")


def _indexed(name: str, count: int | None) -> bool:
    """Return whether a name ends in __index and the tensor with this index exists."""
    stem, mark, index = name.rpartition("__")
    return bool(stem and mark) and index.isdigit() and (count is None or int(index) < count)


def _python(model: Model, path: Path) -> Iterator[Problem]:
    assert model.config is not None
    used = read_python(path)
    config = model.config
    for kind, names, declared in (("input", used.inputs, config.input), ("output", used.outputs, config.output)):
        known = {tensor.name for tensor in declared}
        for name, line in names.items() if known else ():
            if name not in known:
                said = f"uses {kind} {name!r}; declared: {', '.join(sorted(known))}"
                yield model.file_fault("T311", said, path, line)
