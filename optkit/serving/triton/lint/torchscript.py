"""Differences between a TorchScript file and its configuration, by the rules of Triton's PyTorch backend (T302, T309, T312, T313).

The rules: https://github.com/triton-inference-server/pytorch_backend, src/pt/model_instance_state.cc, ValidateInputs and GetNamingConvention.
Names are arguments of forward or NAME__index; otherwise the backend takes the tensors in the order of the configuration.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from optkit.serving.triton.lint.model_file import ForwardNames, read_torchscript
from optkit.serving.triton.lint.names import TORCHSCRIPT_TYPES
from optkit.serving.triton.lint.repository import Model
from optkit.serving.triton.lint.rules import Problem, Severity
from optkit.serving.triton.lint.supplied import Supplied, supplied


def check_torchscript(model: Model, path: Path) -> Iterator[Problem]:
    """Yield the differences between a TorchScript file and the configuration."""
    assert model.config is not None
    if model.config.runtime.endswith(".py"):
        return  # the backend's Python runtime has other rules
    forward = read_torchscript(path)
    extra = list(supplied(model.config))
    yield from _types(model, extra)
    if forward.refused:
        yield model.file_fault("T313", f"forward has {forward.refused}", path)
    elif not forward.takes_dict:
        yield from _inputs(model, forward, extra)
    yield from _outputs(model, forward, extra)


def _types(model: Model, extra: Sequence[Supplied]) -> Iterator[Problem]:
    from tritonclient.grpc import model_config_pb2 as schema

    assert model.config is not None
    declared = [("input", i, t.name, t.data_type) for i, t in enumerate(model.config.input)]
    declared += [("output", i, t.name, t.data_type) for i, t in enumerate(model.config.output)]
    places = [(f"{kind} {name!r}", kinds, (kind, i, "data_type")) for kind, i, name, kinds in declared]
    places += [(f"{t.what} {t.name!r}", t.data_type, t.path) for t in extra if t.what != "batch_input"]  # type: ignore[misc]
    for where, data_type, place in places:
        name = schema.DataType.Name(data_type)
        if data_type and name not in TORCHSCRIPT_TYPES:
            yield model.fault("T312", f"{where} is {name}, which the PyTorch backend does not have", *place)


def _inputs(model: Model, forward: ForwardNames, extra: Sequence[Supplied]) -> Iterator[Problem]:
    assert model.config is not None
    names = [tensor.name for tensor in model.config.input]
    count = len(forward.arguments)
    takes = ", ".join(forward.arguments) or "nothing"
    for tensor in extra:
        if tensor.kind == "input" and tensor.what != "batch_input" and not _indexed(tensor.name, count):
            said = f"{tensor.what} {tensor.name!r} is no NAME__index of an argument; forward takes {takes}"
            yield model.fault("T309", said, *tensor.path)
    given = len(names) + len({tensor.name for tensor in extra if tensor.kind == "input"})
    if names and given != count:
        said = f"{given} inputs are declared; forward takes {takes}"
        yield model.fault("T302", said, "input")
    if all(name in forward.arguments for name in names):
        return
    by_index = all(_is_index(name) for name in names)
    for i, name in enumerate(names):
        if name in forward.arguments or _indexed(name, count):
            continue
        said = f"input {name!r}: forward takes {takes}"
        if by_index or given != count or extra:
            yield model.fault("T309", said, "input", i, "name")
        else:
            said += f"; by its order the backend takes it for {forward.arguments[i]!r}"
            yield model.fault("T309", said, "input", i, "name", severity=Severity.WARNING)


def _outputs(model: Model, forward: ForwardNames, extra: Sequence[Supplied]) -> Iterator[Problem]:
    assert model.config is not None
    names = [tensor.name for tensor in model.config.output]
    by_index = all(_is_index(name) for name in names)
    count = "" if forward.returned is None else f"; forward returns {forward.returned}"
    for tensor in extra:
        if tensor.kind == "output" and not _indexed(tensor.name, forward.returned):
            said = f"{tensor.what} {tensor.name!r} is no NAME__index of an output{count}"
            yield model.fault("T309", said, *tensor.path)
    for i, name in enumerate(names):
        if _indexed(name, forward.returned):
            continue
        beyond = forward.returned is not None and i >= forward.returned
        ordered = not (by_index or beyond or extra)
        said = f"output {name!r} has no index{count}"
        said += f"; by its order the backend takes it for output {i}" if ordered else ""
        yield model.fault("T309", said, "output", i, "name", severity=Severity.WARNING if ordered else None)


def _is_index(name: str) -> bool:
    stem, mark, index = name.partition("__")
    return bool(mark and stem) and index.isascii() and index.isdigit()


def _indexed(name: str, count: int | None) -> bool:
    """Return whether a name is NAME__index and the tensor with this index exists."""
    return _is_index(name) and (count is None or int(name.partition("__")[2]) < count)
