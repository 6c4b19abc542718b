"""Tensors that the server derives from a batch, and the resources of the rate limiter (T223, T225)."""

from collections.abc import Iterator, Mapping
from typing import Any

from optkit.serving.triton.lint.repository import Model
from optkit.serving.triton.lint.rules import Problem

_TYPES = ("TYPE_INT32", "TYPE_FP32")


def check_batch_tensors(model: Model) -> Iterator[Problem]:
    """Yield batch inputs and outputs whose sources, targets or types the server refuses."""
    if model.config is None:
        return
    inputs = {tensor.name for tensor in model.config.input}
    outputs = {tensor.name for tensor in model.config.output}
    for field in ("batch_input", "batch_output"):
        for i, tensor in enumerate(getattr(model.config, field)):
            yield from _sources(model, field, i, tensor, inputs)
            if field == "batch_input":
                yield from _type(model, i, tensor)
            else:
                yield from _targets(model, i, tensor, outputs)


def _sources(model: Model, field: str, i: int, tensor: Any, inputs: set[str]) -> Iterator[Problem]:
    kind = type(tensor).Kind.Name(tensor.kind)
    if len(tensor.source_input) != 1:
        said = f"{field} {i} of kind {kind} has {len(tensor.source_input)} source_input; expected 1"
        yield model.fault("T223", said, field, i)
    for name in tensor.source_input:
        if name not in inputs:
            said = f"{field} {i}: source_input {name!r} is no input; declared: {', '.join(sorted(inputs)) or 'none'}"
            yield model.fault("T223", said, field, i, "source_input")
    if not tensor.target_name:
        yield model.fault("T223", f"{field} {i} has no target_name", field, i)


def _type(model: Model, i: int, tensor: Any) -> Iterator[Problem]:
    from tritonclient.grpc import model_config_pb2 as schema

    found = schema.DataType.Name(tensor.data_type)
    if found not in _TYPES:
        said = f"batch_input {i} has data_type {found}; expected {' or '.join(_TYPES)}"
        yield model.fault("T223", said, "batch_input", i)


def _targets(model: Model, i: int, tensor: Any, outputs: set[str]) -> Iterator[Problem]:
    names = list(tensor.target_name)
    for j, name in enumerate(names):
        if name not in outputs:
            said = (
                f"batch_output {i}: target_name {name!r} is no output; declared: {', '.join(sorted(outputs)) or 'none'}"
            )
            yield model.fault("T223", said, "batch_output", i, "target_name", j)
        elif name in names[:j]:
            yield model.fault("T223", f"batch_output {i}: target_name {name!r} is given twice", "batch_output", i)


def check_resources(models: Mapping[str, Model]) -> Iterator[Problem]:
    """Yield resources of the rate limiter that are global in one place and of a device in another. All models share them."""
    first: dict[str, tuple[bool, str]] = {}
    for model in models.values():
        for i, group in enumerate(model.config.instance_group if model.config is not None else ()):
            for j, resource in enumerate(group.rate_limiter.resources):
                everywhere = bool(getattr(resource, "global"))
                before, where = first.setdefault(resource.name, (everywhere, model.name))
                if everywhere != before:
                    place = "in this model" if where == model.name else f"in model {where!r}"
                    kinds = ["global" if kind else "of one device" for kind in (everywhere, before)]
                    said = f"resource {resource.name!r} is {kinds[0]}, but {kinds[1]} {place}"
                    yield model.fault("T225", said, "instance_group", i, "rate_limiter", 0, "resources", j)
