"""Batching, queues, sequences and warm-up of one model (T205, T206, T214, T215, T219)."""

from collections.abc import Iterator
from typing import Any

from optkit.serving.triton.lint.fields import warmup_size
from optkit.serving.triton.lint.pbtxt import Edit
from optkit.serving.triton.lint.repository import Model
from optkit.serving.triton.lint.rules import Problem


def check_scheduling(model: Model) -> Iterator[Problem]:
    """Yield the problems in batching, queues, sequences and warm-up."""
    config = model.config
    if config is None:
        return
    kind = config.WhichOneof("scheduling_choice")
    if kind == "dynamic_batching":
        if config.max_batch_size <= 0:
            yield model.fault("T206", f"dynamic_batching with max_batch_size {config.max_batch_size}", kind)
        else:
            yield from _preferred(model, config.dynamic_batching.preferred_batch_size, "dynamic_batching")
        yield from _queues(model)
    elif kind == "sequence_batching":
        yield from _sequences(model)
    for i, sample in enumerate(config.model_warmup):
        yield from _warmup(model, i, sample)


def _preferred(model: Model, sizes: Any, *path: str) -> Iterator[Problem]:
    assert model.config is not None
    largest = model.config.max_batch_size
    wrong = [size for size in sizes if not 1 <= size <= largest]
    if not wrong:
        return
    message = model.tree.find(*path)
    edits: list[Edit] = []
    if message:
        kept = [size for size in sizes if size not in wrong]
        edits = model.tree.replace_list(message, "preferred_batch_size", kept)
        if not kept:
            edits = [model.tree.removal(s) for s in model.tree.statements(message, "preferred_batch_size")]
    said = f"preferred_batch_size {wrong} with max_batch_size {largest}"
    at = list(sizes).index(wrong[0])
    yield model.fault("T205", said, *path, "preferred_batch_size", at, edits=tuple(edits))


def _queues(model: Model) -> Iterator[Problem]:
    assert model.config is not None
    batching = model.config.dynamic_batching
    levels, default = batching.priority_levels, batching.default_priority_level
    path = ("dynamic_batching", "default_priority_level")
    if levels and not 1 <= default <= levels:
        yield model.fault("T214", f"default_priority_level is {default}; priority_levels is {levels}", *path)
    elif default and not levels:
        yield model.fault("T214", f"default_priority_level {default} without priority_levels", *path)
    for level in batching.priority_queue_policy:
        if not 1 <= level <= levels:
            said = f"priority_queue_policy for level {level}; priority_levels is {levels}"
            line = model.tree.entry("priority_queue_policy", str(level), "dynamic_batching")
            yield model.fault("T214", said, line=line)


def _sequences(model: Model) -> Iterator[Problem]:
    """Check the controls: each kind once, one pair of values for false and true, and a data type for the correlation ID."""
    assert model.config is not None
    batching = model.config.sequence_batching
    seen: set[int] = set()
    for i, tensor in enumerate(batching.control_input):
        where = ("sequence_batching", "control_input", i)
        if not tensor.name:
            yield model.fault("T219", f"control_input {i} has no name", *where)
        for control in tensor.control:
            kind = type(control).Kind.Name(control.kind)
            values = (control.int32_false_true, control.fp32_false_true, control.bool_false_true)
            given = [list(pair) for pair in values if pair]
            if control.kind in seen:
                yield model.fault("T219", f"{kind} is given twice", *where)
            elif kind == "CONTROL_SEQUENCE_CORRID":
                if not control.data_type:
                    yield model.fault("T219", f"{kind} has no data_type", *where)
            elif len(given) != 1 or len(given[0]) != 2:
                yield model.fault("T219", f"{kind} needs one pair of values for false and true", *where)
            seen.add(control.kind)
    if batching.WhichOneof("strategy_choice") == "oldest":
        yield from _preferred(model, batching.oldest.preferred_batch_size, "sequence_batching", "oldest")


def _warmup(model: Model, i: int, sample: Any) -> Iterator[Problem]:
    config = model.config
    assert config is not None
    where = ("model_warmup", i)
    if not sample.name:
        yield model.fault("T215", f"sample {i} has no name", *where)
    if sample.batch_size > max(config.max_batch_size, 1):
        said = f"batch_size {sample.batch_size} with max_batch_size {config.max_batch_size}"
        yield model.fault("T215", f"{sample.name!r}: {said}", *where, "batch_size")
    declared = {tensor.name: tensor for tensor in config.input}
    for name, tensor in declared.items():
        if name not in sample.inputs and not tensor.optional:
            yield model.fault("T215", f"{sample.name!r} does not give input {name!r}", *where)
    for name, tensor in sample.inputs.items():
        fault = _warmup_fault(model, declared, name, tensor)
        if fault:
            line = model.tree.entry("inputs", name, *where)
            yield model.fault("T215", f"{sample.name!r}: {fault}", line=line)


def _warmup_fault(model: Model, declared: dict[str, Any], name: str, tensor: Any) -> str | None:
    """Return why one tensor of a warm-up request does not fit its input, or None."""
    from tritonclient.grpc import model_config_pb2 as schema

    if name not in declared:
        return f"there is no input {name!r}"
    own = declared[name]
    if tensor.data_type != own.data_type:
        types = [schema.DataType.Name(kind) for kind in (tensor.data_type, own.data_type)]
        return f"input {name!r} is {types[0]}, declared {types[1]}"
    dims, wanted = list(tensor.dims), list(own.dims)
    if len(dims) != len(wanted) or any(b not in (-1, a) for a, b in zip(dims, wanted, strict=True)) or min(dims) < 1:
        return f"input {name!r} has dims {dims}, declared {wanted}"
    sizes = warmup_size(model.folder, tensor)
    if sizes is not None and sizes[0] != sizes[1]:
        return f"the file of input {name!r} has {sizes[1]} bytes; {dims} needs {sizes[0]}"
    return None
