"""Batching, queues, sequences and warm-up of one model (T205, T206, T214, T215, T219, T226)."""

from collections.abc import Iterator
from typing import Any

from optkit.serving.triton.lint.completion import completes
from optkit.serving.triton.lint.fields import warmup_size
from optkit.serving.triton.lint.pbtxt import Edit
from optkit.serving.triton.lint.repository import Model
from optkit.serving.triton.lint.rules import Problem, Severity
from optkit.serving.triton.lint.supplied import supplied

_CORRELATION_IDS = ("TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING")


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
        yield from _ordering(model)
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


def _ordering(model: Model) -> Iterator[Problem]:
    """Check that nothing delays a request where the order of responses is preserved."""
    assert model.config is not None
    batching = model.config.dynamic_batching
    if not batching.preserve_ordering:
        return
    path = ("dynamic_batching", "preserve_ordering")
    if batching.priority_levels > 1:
        yield model.fault("T226", f"preserve_ordering with {batching.priority_levels} priority levels", *path)
    policies = [batching.default_queue_policy, *batching.priority_queue_policy.values()]
    if any(
        policy.default_timeout_microseconds and type(policy).TimeoutAction.Name(policy.timeout_action) == "DELAY"
        for policy in policies
    ):
        yield model.fault("T226", "preserve_ordering with a queue policy that delays requests", *path)


def _sequences(model: Model) -> Iterator[Problem]:
    """Check the controls: each kind once, one pair of values for false and true, and a data type for the correlation ID."""
    assert model.config is not None
    batching = model.config.sequence_batching
    if model.config.response_cache.enable:
        yield model.fault("T217", "response_cache is enabled, but the model has sequence_batching", "response_cache")
    slots = batching.direct.minimum_slot_utilization
    if not 0 <= slots <= 1:
        where = ("sequence_batching", "direct", 0, "minimum_slot_utilization")
        yield model.fault("T219", f"minimum_slot_utilization is {slots:g}; expected 0 to 1", *where)
    seen: set[int] = set()
    names: set[str] = set()
    for i, tensor in enumerate(batching.control_input):
        path = ("sequence_batching", "control_input", i)
        if not tensor.name:
            yield model.fault("T219", f"control_input {i} has no name", *path)
        elif tensor.name in names:
            yield model.fault("T219", f"control_input {tensor.name!r} is given twice", *path)
        names.add(tensor.name)
        for control in tensor.control:
            kind = type(control).Kind.Name(control.kind)
            fault = "is given twice" if control.kind in seen else _control_fault(kind, control)
            if fault:
                yield model.fault("T219", f"{kind} {fault}", *path)
            seen.add(control.kind)
    if batching.WhichOneof("strategy_choice") == "oldest":
        yield from _preferred(model, batching.oldest.preferred_batch_size, "sequence_batching", "oldest")


def _control_fault(kind: str, control: Any) -> str | None:
    """Return why the server refuses a control, or None."""
    values = (control.int32_false_true, control.fp32_false_true, control.bool_false_true)
    given = [list(pair) for pair in values if pair]
    if kind != "CONTROL_SEQUENCE_CORRID":
        complete = len(given) == 1 and len(given[0]) == 2
        return None if complete else "needs one pair of values for false and true"
    if not control.data_type:
        return "has no data_type"
    found = _type_name(control.data_type)
    if found not in _CORRELATION_IDS:
        return f"has data_type {found}; expected one of {', '.join(_CORRELATION_IDS)}"
    return "has values for false and true; expected only data_type" if given else None


def _type_name(data_type: int) -> str:
    from tritonclient.grpc import model_config_pb2 as schema

    return str(schema.DataType.Name(data_type))


def _warmup(model: Model, i: int, sample: Any) -> Iterator[Problem]:
    config = model.config
    assert config is not None
    where = ("model_warmup", i)
    if not sample.name:
        yield model.fault("T215", f"sample {i} has no name", *where)
    if sample.batch_size < 1:
        said = f"{sample.name!r} has no batch_size: the server skips the sample; expected 1 or more"
        yield model.fault("T215", said, *where, severity=Severity.WARNING)
    if sample.batch_size > max(config.max_batch_size, 1):
        said = f"batch_size {sample.batch_size} with max_batch_size {config.max_batch_size}"
        yield model.fault("T215", f"{sample.name!r}: {said}", *where, "batch_size")
    declared = {tensor.name: tensor for tensor in config.input}
    given = {tensor.name for tensor in supplied(config)}  # a sample may give them too
    for name, tensor in declared.items():
        if name not in sample.inputs and not tensor.optional:
            yield model.fault("T215", f"{sample.name!r} does not give input {name!r}", *where)
    for name, tensor in sample.inputs.items():
        if name not in declared and (name in given or completes(model)):
            continue
        fault = _warmup_fault(model, declared, name, tensor)
        if fault:
            line = model.tree.entry("inputs", name, *where)
            yield model.fault("T215", f"{sample.name!r}: {fault}", line=line)


def _warmup_fault(model: Model, declared: dict[str, Any], name: str, tensor: Any) -> str | None:
    """Return why one tensor of a warm-up request does not fit its input, or None."""
    if name not in declared:
        return f"there is no input {name!r}"
    own = declared[name]
    if tensor.data_type != own.data_type:
        types = [_type_name(kind) for kind in (tensor.data_type, own.data_type)]
        return f"input {name!r} is {types[0]}, declared {types[1]}"
    dims, wanted = list(tensor.dims), list(own.dims)
    if (
        len(dims) != len(wanted)
        or any(b not in (-1, a) for a, b in zip(dims, wanted, strict=True))
        or any(a < 1 for a in dims)
    ):
        return f"input {name!r} has dims {dims}, declared {wanted}"
    sizes = warmup_size(model.folder, tensor)
    if sizes is not None and sizes[0] != sizes[1]:
        return f"the file of input {name!r} has {sizes[1]} bytes; {dims} needs {sizes[0]}"
    return None
