"""The fields of one configuration: backend, tensors, instances, accelerators (T201 to T221)."""

import difflib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optkit.serving.triton.lint.completion import completes
from optkit.serving.triton.lint.names import BACKENDS, FILES, MISNAMED, PLATFORMS, contradict
from optkit.serving.triton.lint.pbtxt import Edit
from optkit.serving.triton.lint.repository import Model
from optkit.serving.triton.lint.rules import Problem, Severity
from optkit.untrusted.paths import is_file, name_fault

_KNOW_THEIR_TENSORS = {"onnxruntime", "tensorrt", "tensorflow", "openvino"}
_COMPLETE_NO_FIELD = {"onnxruntime", "pytorch", "python"}  # others can add the type or dims of a declared tensor


def check_fields(model: Model) -> Iterator[Problem]:
    """Yield the problems in the configuration of one model, without its model file."""
    if model.config is None:
        return
    if model.config.max_batch_size < 0:
        yield model.fault("T201", f"max_batch_size is {model.config.max_batch_size}", "max_batch_size")
    yield from _backend(model)
    yield from _tensors(model)
    yield from _instances(model)
    if model.config.response_cache.enable and model.config.model_transaction_policy.decoupled:
        yield model.fault(
            "T217", "response_cache is enabled, but model_transaction_policy is decoupled", "response_cache"
        )


def _backend(model: Model) -> Iterator[Problem]:
    config = model.config
    assert config is not None
    platform, backend = config.platform, config.backend
    if not platform and not backend:
        if model.versions and not model.is_ensemble and not model.backend:  # T111 reports a model without a version
            yield model.fault("T204", "has neither platform nor backend, and its files do not determine the backend")
        return
    if platform and platform not in PLATFORMS and not backend:
        yield from _unknown_platform(model, platform)
    elif backend and model.is_ensemble:
        yield model.fault("T203", f"an ensemble has backend {backend!r}; expected none", "backend")
    elif contradict(platform, backend):
        yield model.fault("T203", f"platform {platform!r} does not belong to backend {backend!r}", "platform")
    elif backend and backend not in BACKENDS and not _own_backend(model):
        yield from _unknown_backend(model, backend)


def _unknown_platform(model: Model, platform: str) -> Iterator[Problem]:
    """Report a platform that no server has. The model files decide whether the correction is certain."""
    near = difflib.get_close_matches(platform, list(PLATFORMS), 1)
    value = model.tree.find("platform")
    certain = bool(near) and value is not None and _proven(model, PLATFORMS[near[0]])
    edits = (Edit(value.start, value.end, f'"{near[0]}"'),) if value and certain else ()
    hint = f"; did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(PLATFORMS)}"
    yield model.fault("T202", f"unknown platform {platform!r}{hint}", "platform", edits=edits)


def _unknown_backend(model: Model, backend: str) -> Iterator[Problem]:
    """Report a backend that resembles one of Triton's. It can be one of the user's own: only another word for one of Triton's is certain."""
    if backend in MISNAMED and _proven(model, MISNAMED[backend]):
        value = model.tree.find("backend")
        edits = (Edit(value.start, value.end, f'"{MISNAMED[backend]}"'),) if value else ()
        said = f"unknown backend {backend!r}; did you mean {MISNAMED[backend]!r}?"
        yield model.fault("T202", said, "backend", edits=edits)
        return
    near = [MISNAMED[backend]] if backend in MISNAMED else difflib.get_close_matches(backend, sorted(BACKENDS), 1, 0.75)
    if near:
        said = f"backend {backend!r} is not one of Triton's; did you mean {near[0]!r}, or is it your own?"
        yield model.fault("T202", said, "backend", severity=Severity.WARNING)


def _proven(model: Model, backend: str) -> bool:
    """Return whether each version holds the model file of this backend and of no other."""
    wanted = FILES.get(backend)
    known = set(FILES.values())
    found = [{part.name for part in folder.iterdir()} & known for folder in model.versions.values()]
    return bool(found) and all(names == {wanted} for names in found)


def _own_backend(model: Model) -> bool:
    """Return whether the model's folder contains the user's own backend, where the server looks for it."""
    assert model.config is not None
    name = f"libtriton_{model.config.backend}.so"
    return any(is_file(folder / name) for folder in (model.folder, *model.versions.values()))


def _tensors(model: Model) -> Iterator[Problem]:
    config = model.config
    assert config is not None
    fills = completes(model)
    for kind, tensors in (("input", config.input), ("output", config.output)):
        if not tensors and not model.is_ensemble:
            yield from _none_declared(model, kind, fills)
        names = [tensor.name for tensor in tensors]
        for i, tensor in enumerate(tensors):
            if tensor.name and tensor.name in names[:i]:
                yield model.fault("T209", f"{kind} {tensor.name!r} is declared twice", kind, i, "name")
            yield from _tensor(model, kind, i, tensor, fills or model.backend not in _COMPLETE_NO_FIELD)


def _none_declared(model: Model, kind: str, fills: bool) -> Iterator[Problem]:
    if fills or model.backend in _KNOW_THEIR_TENSORS:
        yield model.fault("T102", f"declares no {kind}: completed when the model loads, not checked")
    elif model.backend == "pytorch":
        said = f"declares no {kind}; the PyTorch backend does not read {kind}s from the model file"
        yield model.fault("T102", said, severity=Severity.ERROR)


def _tensor(model: Model, kind: str, i: int, tensor: Any, fills: bool) -> Iterator[Problem]:
    assert model.config is not None
    missing = [
        field
        for field, there in (("name", tensor.name), ("data_type", tensor.data_type), ("dims", len(tensor.dims)))
        if not there
    ]
    where = f"{kind} {tensor.name!r}" if tensor.name else f"{kind} {i}"
    if missing and fills and tensor.name:
        said = f"{where} has no {' and no '.join(missing)}: completed when the model loads, not checked"
        yield model.fault("T102", said, kind, i)
    elif missing:
        yield model.fault("T207", f"{where} has no {' and no '.join(missing)}", kind, i)
    for j, dim in enumerate(tensor.dims):
        if dim == 0 or dim < -1:
            yield model.fault("T208", f"{where} has dimension {dim}", kind, i, "dims", j)
    if tensor.HasField("reshape"):
        yield from _reshape(model, kind, i, tensor)
    yield from _layout(model, kind, i, tensor)


def _layout(model: Model, kind: str, i: int, tensor: Any) -> Iterator[Problem]:
    """Check the fields that are for images, for ragged batches and for TensorRT engines."""
    assert model.config is not None
    where = f"{kind} {tensor.name!r}" if tensor.name else f"{kind} {i}"
    if kind == "input" and tensor.format and len(tensor.dims) != 3:
        name = type(tensor).Format.Name(tensor.format)
        yield model.fault("T218", f"{where} is {name} with {len(tensor.dims)} dims", kind, i, "format")
    if kind == "input" and tensor.allow_ragged_batch and not model.config.max_batch_size:
        yield model.fault("T221", f"{where} allows ragged batches; max_batch_size is 0", kind, i, "allow_ragged_batch")
    if model.backend == "tensorrt" or (model.backend not in BACKENDS and not model.config.platform):
        return
    for field in ("is_shape_tensor", "is_non_linear_format_io"):
        if getattr(tensor, field, False):
            yield model.fault("T224", f"{where} has {field}; the backend is {model.backend!r}", kind, i, field)


def _reshape(model: Model, kind: str, i: int, tensor: Any) -> Iterator[Problem]:
    """Check that a reshape keeps the number of elements between dynamic dimensions, like the server."""
    assert model.config is not None
    dims, shape = list(tensor.dims), list(tensor.reshape.shape)
    if any(dim == 0 or dim < -1 for dim in shape):
        yield model.fault("T208", f"{kind} {tensor.name!r} is reshaped to {shape}", kind, i, "reshape")
    elif not shape and not model.config.max_batch_size:
        said = f"{kind} {tensor.name!r} has an empty reshape; this needs max_batch_size above 0"
        yield model.fault("T210", said, kind, i, "reshape")
    elif _runs(dims) != _runs(shape):
        yield model.fault("T210", f"{kind} {tensor.name!r}: dims {dims} reshaped to {shape}", kind, i, "reshape")


def _runs(dims: list[int]) -> list[int]:
    """Return the number of elements before, between and after the dynamic dimensions."""
    runs = [1]
    for dim in dims:
        if dim == -1:
            runs.append(1)
        else:
            runs[-1] *= dim
    return runs


def _instances(model: Model) -> Iterator[Problem]:
    config = model.config
    assert config is not None
    if model.is_ensemble and config.instance_group:
        edits = tuple(model.tree.removal(s) for s in model.tree.statements(model.tree.root, "instance_group"))
        yield model.fault("T212", "an ensemble has instance_group", "instance_group", edits=edits)
        return
    for i, group in enumerate(config.instance_group):
        kind = type(group).Kind.Name(group.kind)
        yield from _profiles(model, i, group)
        written = model.tree.find("instance_group", i, "count") is not None
        if group.count < 0 or (written and group.count < 1):
            yield model.fault("T211", f"instance_group count is {group.count}", "instance_group", i, "count")
        if group.gpus and kind not in ("KIND_GPU", "KIND_AUTO"):
            yield model.fault("T213", f"{kind} with gpus {list(group.gpus)}", "instance_group", i, "gpus")
        elif len(set(group.gpus)) < len(group.gpus):
            yield model.fault("T213", f"gpus {list(group.gpus)} contains a GPU twice", "instance_group", i, "gpus")
        elif any(gpu < 0 for gpu in group.gpus):
            yield model.fault(
                "T213", f"gpus {list(group.gpus)} contains a negative number", "instance_group", i, "gpus"
            )


def _profiles(model: Model, i: int, group: Any) -> Iterator[Problem]:
    """Check optimization profiles, which are numbers and belong to TensorRT engines."""
    where = ("instance_group", i, "profile")
    if group.profile and model.backend and model.backend != "tensorrt":
        said = f"instance_group has profile {list(group.profile)}; the backend is {model.backend!r}"
        yield model.fault("T224", said, *where)
    elif wrong := [name for name in group.profile if not (name.isascii() and name.isdigit())]:
        yield model.fault("T224", f"instance_group has profile {wrong}; expected numbers from 0", *where)


def check_gpus(model: Model, gpus: int) -> Iterator[Problem]:
    """Yield instances on GPUs that a server with this number of GPUs does not have."""
    for i, group in enumerate(model.config.instance_group if model.config is not None else ()):
        kind = type(group).Kind.Name(group.kind)
        if kind == "KIND_GPU" and not gpus:
            yield model.fault("T213", "kind is KIND_GPU, but the server has no GPU", "instance_group", i, "kind")
        elif beyond := [gpu for gpu in group.gpus if gpu >= gpus]:
            said = f"gpus {beyond}: the server has {gpus} GPUs, counted from 0"
            yield model.fault("T213", said, "instance_group", i, "gpus")


def element_bytes(data_type: int) -> int | None:
    """Return the size of one element, or None for strings, which have no fixed size."""
    from tritonclient.grpc import model_config_pb2 as schema

    name = schema.DataType.Name(data_type).removeprefix("TYPE_")
    sizes = {"BOOL": 1, "UINT8": 1, "INT8": 1, "BF16": 2, "FP16": 2, "FP32": 4, "FP64": 8}
    sizes |= {f"{sign}INT{bits}": bits // 8 for sign in ("", "U") for bits in (16, 32, 64)}
    return sizes.get(name)


def warmup_size(folder: Path, tensor: Any) -> tuple[int, int] | None:
    """Return the expected and the actual size of a warm-up file, or None if they are unknown."""
    name, size = tensor.input_data_file, element_bytes(tensor.data_type)
    file = folder / "warmup" / name
    if not name or size is None or name_fault(name) or not is_file(file):
        return None
    return math.prod(tensor.dims) * size, file.stat().st_size
