"""Accelerators and parameters, in the forms that the backend accepts (T216, T222)."""

import difflib
import re
from collections.abc import Iterator, Mapping

from optkit.serving.triton.lint.names import (
    ACCELERATOR_PARAMETERS,
    BACKENDS,
    CPU_ACCELERATORS,
    CUDA_PARAMETERS,
    GPU_ACCELERATORS,
    PARAMETERS,
    Form,
)
from optkit.serving.triton.lint.repository import Model
from optkit.serving.triton.lint.rules import Problem, Severity

_WHERE = ("optimization", "execution_accelerators")


def check_parameters(model: Model) -> Iterator[Problem]:
    """Yield accelerators and parameters that the backend refuses."""
    if model.config is None:
        return
    yield from _accelerators(model)
    forms: Mapping[str, Form] = PARAMETERS.get(model.backend, {})
    for key, parameter in model.config.parameters.items():
        if key in forms:
            line = model.tree.entry("parameters", key)
            yield from _value(model, f"parameter {key}", parameter.string_value, forms[key], line)
        elif near := _by_case(key, forms):
            said = f"parameter {key!r} has no meaning for the backend; did you mean {near!r}?"
            yield model.fault("T222", said, line=model.tree.entry("parameters", key), severity=Severity.WARNING)


def _by_case(key: str, forms: Mapping[str, Form]) -> str | None:
    """Return the parameter that has this name in other letters, such as lower case."""
    return next((name for name in forms if name.lower() == key.lower().replace("-", "_")), None)


def _value(model: Model, what: str, value: str, form: Form, line: int | None) -> Iterator[Problem]:
    expected = form(value)
    if expected is None:
        return
    # The server reads "4 cores" as 4: it takes the digits and says nothing of the rest.
    begins = expected == "an integer" and re.match(r"\s*[+-]?\d", value)
    severity = Severity.WARNING if begins else None
    yield model.fault("T222", f"{what} is {value!r}; expected {expected}", line=line, severity=severity)


def _accelerators(model: Model) -> Iterator[Problem]:
    config = model.config
    assert config is not None
    kinds = {type(group).Kind.Name(group.kind) for group in config.instance_group}
    accelerators = config.optimization.execution_accelerators
    for i, accelerator in enumerate(accelerators.gpu_execution_accelerator):
        path = (*_WHERE, "gpu_execution_accelerator", i)
        yield from _name(model, "GPU", accelerator.name, GPU_ACCELERATORS, CPU_ACCELERATORS, *path)
        if kinds == {"KIND_CPU"}:
            said = f"GPU accelerator {accelerator.name!r}, but all instances are KIND_CPU"
            yield model.fault("T216", said, *path)
        yield from _accelerator_parameters(model, accelerator.name, accelerator.parameters, *path)
    for i, accelerator in enumerate(accelerators.cpu_execution_accelerator):
        path = (*_WHERE, "cpu_execution_accelerator", i)
        yield from _name(model, "CPU", accelerator.name, CPU_ACCELERATORS, GPU_ACCELERATORS, *path)
    if config.optimization.cuda.graphs and kinds == {"KIND_CPU"}:
        yield model.fault("T216", "CUDA graphs, but all instances are KIND_CPU", "optimization", "cuda", "graphs")


def _name(
    model: Model,
    kind: str,
    name: str,
    own: Mapping[str, frozenset[str]],
    others: Mapping[str, frozenset[str]],
    *path: str | int,
) -> Iterator[Problem]:
    """Report a name that the backend does not know. Only what it refuses for certain is an error; a backend of one's own has its own names."""
    anywhere = frozenset().union(*own.values())
    known, foreign = own.get(model.backend, anywhere), frozenset().union(*others.values()) - anywhere
    if name in known or (model.backend and model.backend not in BACKENDS):
        return
    said = f"{kind} accelerator {name!r}; expected {' or '.join(sorted(known)) or 'none'}"
    near = difflib.get_close_matches(name, known, 1)
    certain = model.backend in own and bool(near or name in foreign or name in anywhere)
    said += f"; did you mean {near[0]!r}?" if near else ""
    yield model.fault("T216", said, *path, severity=None if certain else Severity.WARNING)


def _accelerator_parameters(
    model: Model, name: str, parameters: Mapping[str, str], *path: str | int
) -> Iterator[Problem]:
    if model.backend != "onnxruntime":
        return
    forms = ACCELERATOR_PARAMETERS.get(name)
    for key, value in parameters.items():
        line = model.tree.entry("parameters", key, *path)
        form = (forms or CUDA_PARAMETERS).get(key)
        if form is not None:
            yield from _value(model, f"parameter {key} of accelerator {name!r}", value, form, line)
        elif forms is not None:
            near = difflib.get_close_matches(key, forms, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield model.fault("T222", f"accelerator {name!r} has no parameter {key!r}{hint}", line=line)
