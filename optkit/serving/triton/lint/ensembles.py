"""Ensembles: the steps, their maps, and the tensors between them (T401 to T415)."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from optkit.serving.triton.lint.completion import completes
from optkit.serving.triton.lint.ensemble_graph import check_decoupled, check_members, declared
from optkit.serving.triton.lint.repository import Model
from optkit.serving.triton.lint.rules import Problem


@dataclasses.dataclass(frozen=True)
class _End:
    """The producer or a consumer of a tensor."""

    where: str
    data_type: int
    dims: tuple[int, ...]
    full: tuple[int, ...]  # with the batch dimension, if the model batches


def check_ensemble(model: Model, models: Mapping[str, Model]) -> Iterator[Problem]:
    """Yield the problems of an ensemble; `models` are all models of the repository."""
    if not model.is_ensemble:
        return
    assert model.config is not None
    steps = model.config.ensemble_scheduling.step
    if not steps:
        yield model.fault("T401", "has no step", "ensemble_scheduling")
        return
    for field in ("optimization", "model_warmup"):
        if model.config.HasField(field) if field == "optimization" else model.config.model_warmup:
            yield model.fault("T415", f"an ensemble has {field}; the server refuses it", field)
    if model.config.platform != "ensemble":
        said = f"has ensemble_scheduling, but its platform is {model.config.platform!r}; expected 'ensemble'"
        yield model.fault("T203", said, "platform" if model.config.platform else "ensemble_scheduling")
    broken = [found for i, step in enumerate(steps) for found in _step(model, i, step, models)]
    yield from broken
    if all(found.finding.rule == "T403" for found in broken) and _all_declared(steps, models):
        yield from _tensors(model, models)  # otherwise every tensor after a faulty step would be missing too
        yield from check_decoupled(model, models)
    yield from check_members(model, models)
    yield from _batches(model, models)


def _all_declared(steps: Any, models: Mapping[str, Model]) -> bool:
    """Return whether the configuration of every member can be read and declares the tensors of its step."""
    return all(
        set(getattr(step, f"{kind}_map")) <= (declared(models[step.model_name], kind) or set())
        for step in steps
        for kind in ("input", "output")
    )


def _path(i: int) -> tuple[str, str, int]:
    return "ensemble_scheduling", "step", i


def _step(model: Model, i: int, step: Any, models: Mapping[str, Model]) -> Iterator[Problem]:
    member = models.get(step.model_name)
    if member is None:
        known = ", ".join(name for name in models if name != model.name)
        yield model.fault(
            "T402",
            f"step {i}: no model {step.model_name!r}; expected one of {known or 'none'}",
            *_path(i),
            "model_name",
        )
        return
    if step.model_version > 0 and member.loaded and step.model_version not in member.loaded:
        there = ", ".join(map(str, member.loaded)) or "none"
        said = f"step {i}: version {step.model_version} of {member.name!r} is not loaded; loaded versions: {there}"
        yield model.fault("T403", said, *_path(i), "model_version")
    if member.config is None:
        return
    for kind in ("input", "output"):
        given, own = getattr(step, f"{kind}_map"), declared(member, kind)
        if not given:
            yield model.fault(
                "T405" if kind == "input" else "T404", f"step {i}: no {kind} of {member.name!r} is mapped", *_path(i)
            )
        if not own or completes(member):
            continue  # completed when the member loads
        for key in sorted(set(given) - own):
            line = model.tree.entry(f"{kind}_map", key, *_path(i))
            said = f"step {i}: {member.name!r} has no {kind} {key!r}; expected one of {', '.join(sorted(own))}"
            yield model.fault("T404", said, line=line)
    for tensor in member.config.input if step.input_map else ():
        if tensor.name not in step.input_map and not tensor.optional:
            yield model.fault("T405", f"step {i}: input {tensor.name!r} of {member.name!r} is not mapped", *_path(i))


def _tensors(model: Model, models: Mapping[str, Model]) -> Iterator[Problem]:
    """Check every tensor from its producer to its consumers."""
    assert model.config is not None
    written = {t.name: _end(model, f"input {t.name!r} of the ensemble", t) for t in model.config.input}
    makers: dict[str, int] = {}
    for i, step in enumerate(model.config.ensemble_scheduling.step):
        for key, name in step.output_map.items():
            if name in written:
                line = model.tree.entry("output_map", key, *_path(i))
                yield model.fault(
                    "T407", f"step {i}: {name!r} has a producer already: {written[name].where}", line=line
                )
                continue
            end = _member_end(models, step.model_name, "output", key, i)
            makers[name] = i
            written[name] = end
    yield from _readers(model, models, written)
    yield from _circles(model, makers)


def _readers(model: Model, models: Mapping[str, Model], written: Mapping[str, _End]) -> Iterator[Problem]:
    assert model.config is not None
    ends: list[tuple[str, _End, int | None]] = []
    for i, step in enumerate(model.config.ensemble_scheduling.step):
        for key, name in step.input_map.items():
            line = model.tree.entry("input_map", key, *_path(i))
            ends.append((name, _member_end(models, step.model_name, "input", key, i), line))
    for i, tensor in enumerate(model.config.output):
        end = _end(model, f"output {tensor.name!r} of the ensemble", tensor)
        ends.append((tensor.name, end, model.at("output", i)))
    unused = [name for name in written if name not in {name for name, _, _ in ends}]
    missing = [(name, end, line) for name, end, line in ends if name not in written]
    hint = f"; {' and '.join(map(repr, unused))} has no consumer" if unused else ""
    for name, end, line in missing:
        yield model.fault("T406", f"tensor {name!r} ({end.where}) has no producer{hint}", line=line)
    for name in unused if not missing else ():
        said = f"tensor {name!r} ({written[name].where}) has no consumer"
        yield model.fault("T413", said, line=_line(model, name))
    for name, end, line in ends:
        if name in written:
            yield from _joined(model, name, written[name], end, line)


def _line(model: Model, name: str) -> int | None:
    """Return the line of the producer of a tensor: an input of the ensemble, or an entry in the output map of a step."""
    assert model.config is not None
    for i, tensor in enumerate(model.config.input):
        if tensor.name == name:
            return model.at("input", i)
    for i, step in enumerate(model.config.ensemble_scheduling.step):
        for key, tensor_name in step.output_map.items():
            if tensor_name == name:
                return model.tree.entry("output_map", key, *_path(i))
    return None


def _joined(model: Model, name: str, source: _End, end: _End, line: int | None) -> Iterator[Problem]:
    from tritonclient.grpc import model_config_pb2 as schema

    if source.data_type != end.data_type:
        types = [schema.DataType.Name(kind) for kind in (source.data_type, end.data_type)]
        said = f"tensor {name!r}: {source.where} is {types[0]}, {end.where} is {types[1]}"
        yield model.fault("T408", said, line=line)
    elif not (_alike(source.dims, end.dims) or _alike(source.full, end.full)):
        said = f"tensor {name!r}: {source.where} is {list(source.full)}, {end.where} is {list(end.full)}"
        yield model.fault("T409", said, line=line)


def _alike(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Return whether two shapes are compatible by the server's rules: -1 fits any size."""
    return len(one) == len(other) and all(a == b or -1 in (a, b) for a, b in zip(one, other, strict=True))


def _end(model: Model, where: str, tensor: Any) -> _End:
    assert model.config is not None
    dims = tuple(tensor.reshape.shape if model.is_ensemble and tensor.HasField("reshape") else tensor.dims)
    return _End(where, tensor.data_type, dims, (-1, *dims) if model.config.max_batch_size else dims)


def _member_end(models: Mapping[str, Model], name: str, kind: str, key: str, i: int) -> _End:
    member = models[name]
    assert member.config is not None
    tensor = next(t for t in (member.config.input if kind == "input" else member.config.output) if t.name == key)
    # A member is compared by its dims, whatever its reshape: this is what its clients send.
    dims = tuple(tensor.dims)
    full = (-1, *dims) if member.config.max_batch_size else dims
    return _End(f"{kind} {key!r} of {name!r} (step {i})", tensor.data_type, dims, full)


def _circles(model: Model, makers: Mapping[str, int]) -> Iterator[Problem]:
    """Find steps that need their own outputs, directly or through other steps."""
    assert model.config is not None
    steps = model.config.ensemble_scheduling.step
    needs = {i: {makers[name] for name in step.input_map.values() if name in makers} for i, step in enumerate(steps)}
    done: set[int] = set()
    while ready := [i for i in needs if i not in done and needs[i] <= done]:
        done.update(ready)
    left = sorted(set(needs) - done)
    if left:
        names = ", ".join(f"{i} ({steps[i].model_name})" for i in left)
        yield model.fault("T412", f"steps {names} form a cycle", *_path(left[0]))


def _sets_its_batch(member: Model) -> bool:
    """Return whether max_batch_size can change when the member loads."""
    config = member.config
    return completes(member) or (config is not None and not (config.input and config.output))


def _batches(model: Model, models: Mapping[str, Model]) -> Iterator[Problem]:
    assert model.config is not None
    steps = model.config.ensemble_scheduling.step
    sizes = {step.model_name: models[step.model_name].config for step in steps if step.model_name in models}
    members = {
        name: config.max_batch_size
        for name, config in sizes.items()
        if config is not None and name != model.name and not _sets_its_batch(models[name])
    }
    largest = model.config.max_batch_size
    for name, size in members.items():
        if 0 < size < largest:  # one that does not batch can have the batch in its dims, which T409 compares
            yield model.fault("T410", f"max_batch_size is {largest}; {name!r} has {size}", "max_batch_size")
            return
    if not largest and members and min(members.values()) > 0:
        yield model.fault("T411", f"max_batch_size is 0; {', '.join(members)} batch", "max_batch_size")
