"""What no single step shows: ensembles that need each other, and tensors of different decoupled models (T412, T414).

The rules are those of the server: model_repository_manager.cc (CircularDependencyCheck) and ensemble_utils.cc (ValidateEnsembleConfig).
"""

from collections.abc import Iterator, Mapping

from optkit.serving.triton.lint.repository import Model
from optkit.serving.triton.lint.rules import Problem


def declared(model: Model, kind: str) -> set[str] | None:
    """Return the names of the declared inputs or outputs, or None if the configuration cannot be read."""
    if model.config is None:
        return None
    return {tensor.name for tensor in (model.config.input if kind == "input" else model.config.output)}


def _members(model: Model, models: Mapping[str, Model]) -> list[str]:
    """Return the members of an ensemble that exist, each once. A model that is no ensemble has none."""
    steps = model.config.ensemble_scheduling.step if model.config is not None and model.is_ensemble else ()
    return [name for name in dict.fromkeys(step.model_name for step in steps) if name in models]


def check_members(model: Model, models: Mapping[str, Model]) -> Iterator[Problem]:
    """Yield the way by which an ensemble steps into itself, directly or through other ensembles."""
    way = _way_back(model, models)
    if way is None:
        return
    assert model.config is not None
    steps = [step.model_name for step in model.config.ensemble_scheduling.step]
    said = f"{' -> '.join(map(repr, way))}: the ensemble needs itself"
    yield model.fault("T412", said, "ensemble_scheduling", "step", steps.index(way[1]), "model_name")


def _way_back(model: Model, models: Mapping[str, Model]) -> tuple[str, ...] | None:
    waiting: list[tuple[str, ...]] = [(model.name, name) for name in _members(model, models)]
    seen: set[str] = set()
    while waiting:
        way = waiting.pop(0)
        if way[-1] == model.name:
            return way
        if way[-1] not in seen:
            seen.add(way[-1])
            waiting += [(*way, name) for name in _members(models[way[-1]], models)]
    return None


def is_decoupled(model: Model, models: Mapping[str, Model]) -> bool:
    """Return whether a model, or a member of an ensemble at any depth, sends another number of responses than requests."""
    waiting, seen = [model], {model.name}
    while waiting:
        one = waiting.pop()
        if one.config is not None and one.config.model_transaction_policy.decoupled and not one.is_ensemble:
            return True
        inner = [name for name in _members(one, models) if name not in seen]
        seen.update(inner)
        waiting += [models[name] for name in inner]
    return False


def check_decoupled(model: Model, models: Mapping[str, Model]) -> Iterator[Problem]:
    """Yield steps and outputs that join tensors which come in different numbers of responses.

    A decoupled step gives its outputs a stream of their own. Other steps pass on the stream of their inputs.
    """
    assert model.config is not None
    steps = model.config.ensemble_scheduling.step
    stream = {
        tensor.name: 0 for tensor in model.config.input
    }  # tensor -> the decoupled step whose responses it follows
    waiting = list(range(len(steps)))
    while ready := [i for i in waiting if all(name in stream for name in steps[i].input_map.values())]:
        for i in ready:
            waiting.remove(i)
            found = {name: stream[name] for name in steps[i].input_map.values()}
            if len(set(found.values())) > 1:
                said = f"step {i} ({steps[i].model_name}) joins {_joined(model, found)}"
                yield model.fault("T414", said, "ensemble_scheduling", "step", i)
                return
            own = i + 1 if is_decoupled(models[steps[i].model_name], models) else next(iter(found.values()), 0)
            stream.update(dict.fromkeys(steps[i].output_map.values(), own))
    outputs = {tensor.name: stream[tensor.name] for tensor in model.config.output if tensor.name in stream}
    if len(set(outputs.values())) > 1:
        yield model.fault("T414", f"the outputs join {_joined(model, outputs)}", "output")


def _joined(model: Model, found: Mapping[str, int]) -> str:
    assert model.config is not None
    steps = model.config.ensemble_scheduling.step
    whose = {
        name: f"of decoupled step {i - 1} ({steps[i - 1].model_name})" if i else "of the request"
        for name, i in found.items()
    }
    return " and ".join(f"{name!r} {text}" for name, text in whose.items())
