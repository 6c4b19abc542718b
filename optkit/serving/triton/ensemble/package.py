"""A pipeline of parts: what the recipe says of it, and the graph that its maps come to, with names, types and shapes checked."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from optkit.artifact import Artifact
from optkit.artifact.findings import BatchIndependence
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.data import absolute_data, data_fault
from optkit.errors import StageError
from optkit.record import Record
from optkit.serving.settings import Name, Specs, artifact_faults, range_faults
from optkit.serving.triton_fields import Count, Instances
from optkit.untrusted.names import TensorName
from optkit.user_code import absolute_target, target_fault


class EnsemblePart(Record):
    """One part: an artifact of the run, an nn.Module that is exported to ONNX, or a Python function of a feed.

    `takes` and `gives` map the part's own inputs and outputs to tensors of the pipeline; those left out keep their own name.
    """

    name: Name
    artifact: str | None = None  # a step's name, or fastest
    module: str | None = None  # file.py:factory of an nn.Module, with `inputs`
    function: str | None = None  # file.py:function of input name -> array, with `inputs` and `outputs`
    inputs: Specs = ()
    outputs: Specs = ()
    output_names: tuple[TensorName, ...] | None = None  # of a module, in order
    takes: dict[TensorName, TensorName] = Field(default_factory=dict)
    gives: dict[TensorName, TensorName] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [key for key in ("artifact", "module", "function") if getattr(self, key)]
        if len(kinds) != 1:
            raise ValueError(
                f"{self.name}: got {' and '.join(kinds) or 'none'} of artifact, module and function; give one"
            )
        needed = {"artifact": set(), "module": {"inputs"}, "function": {"inputs", "outputs"}}[kinds[0]]
        given = {key for key in ("inputs", "outputs") if getattr(self, key)}
        if given != needed:
            expected = " and ".join(sorted(needed)) or "neither inputs nor outputs"
            raise ValueError(f"{self.name}: a part of kind {kinds[0]} needs {expected}")
        return self


class EnsembleSettings(Record):
    """A pipeline that is served as one model. `reference` is the source code's own pipeline, to which it must be equal."""

    name: Name
    version: Count = 1
    inputs: Specs
    outputs: tuple[TensorName, ...] = Field(min_length=1)
    parts: tuple[EnsemblePart, ...] = Field(min_length=1)
    reference: str  # file.py:function of input name -> array, which gives output name -> array
    data: str | None = None  # real feeds of the pipeline
    max_batch_size: Count | None = None
    instances: Instances = Instances()
    client: bool = True

    def faults(self, steps: Sequence[str], dims: Mapping[str, DimRange]) -> Iterator[str]:
        """Yield what keeps the pipeline from being made in a recipe with these steps and ranges of dimensions."""
        targets = [self.reference, *(t for part in self.parts for t in (part.module, part.function) if t)]
        yield from (fault for target in targets if (fault := target_fault(target)))
        if self.data and (fault := data_fault(self.data)):
            yield f"data: {fault}"
        yield from range_faults((*self.inputs, *(spec for part in self.parts for spec in part.inputs)), dims)
        for part in self.parts:
            if part.artifact is not None:
                yield from (f"part {part.name!r}: {fault}" for fault in artifact_faults(part.artifact, steps))

    def with_absolute_paths(self, base: Path) -> Self:
        """Return the settings with every path made absolute; a relative one starts at `base`.

        Raises:
            ModelError: a target names no function.
        """
        parts = [
            part.model_copy(
                update={
                    key: absolute_target(target, base)
                    for key in ("module", "function")
                    if (target := getattr(part, key)) is not None
                }
            )
            for part in self.parts
        ]
        return self.model_copy(
            update={
                "parts": tuple(parts),
                "reference": absolute_target(self.reference, base),
                "data": absolute_data(self.data, base) if self.data else None,
            }
        )


@dataclasses.dataclass(frozen=True)
class Node:
    """A part that is ready to run: a model file with what was found about putting its requests together, or a function.

    `takes` and `gives` hold every input and every output that is used, by its own name.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    takes: Mapping[str, str]
    gives: Mapping[str, str]
    artifact: Artifact | None = None
    independence: BatchIndependence | None = None
    function: str | None = None


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """The graph, its nodes in an order in which they can run."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    nodes: tuple[Node, ...]
    dims: Mapping[str, DimRange]


def connect(
    name: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[str],
    nodes: Sequence[Node],
    dims: Mapping[str, DimRange],
) -> Ensemble:
    """Put the nodes in order and check every tensor between them.

    Raises:
        StageError: a map names nothing, a tensor is written twice, by nobody, or used by nobody, types or shapes differ, or the
            nodes wait for each other; lists every fault.
    """
    faults = list(_name_faults(nodes))
    written = {spec.name: spec for spec in inputs}
    for node in nodes:
        for spec in node.outputs:
            tensor = node.gives.get(spec.name)
            if tensor is None:
                continue
            if tensor in written:
                faults.append(f"{node.name}: writes {tensor!r}, which is written already")
            written.setdefault(tensor, spec)
    read = {tensor for node in nodes for tensor in node.takes.values()} | set(outputs)
    faults += [f"nothing writes {tensor!r}; there is {', '.join(written)}" for tensor in sorted(read - set(written))]
    faults += [f"{tensor!r} goes nowhere" for tensor in sorted(set(written) - read)]
    faults += _type_faults(nodes, written)
    ordered = _ordered(nodes, {spec.name for spec in inputs})
    if len(ordered) < len(nodes) and not faults:
        waiting = ", ".join(node.name for node in nodes if node not in ordered)
        faults.append(f"{waiting}: wait for each other")
    if faults:
        raise StageError(f"ensemble {name!r}: {'; '.join(faults)}")
    given = tuple(written[tensor].model_copy(update={"name": tensor}) for tensor in outputs)
    return Ensemble(name, tuple(inputs), given, tuple(ordered), dims)


def _name_faults(nodes: Sequence[Node]) -> Iterator[str]:
    names = [node.name for node in nodes]
    yield from (f"two parts are called {name!r}" for name in sorted({n for n in names if names.count(n) > 1}))
    for node in nodes:
        for key, given, specs in (("takes", node.takes, node.inputs), ("gives", node.gives, node.outputs)):
            known = [spec.name for spec in specs]
            for own in given:
                if own not in known:
                    yield f"{node.name}: {key} names {own!r}; it has {', '.join(known)}"


def _type_faults(nodes: Sequence[Node], written: Mapping[str, TensorSpec]) -> list[str]:
    faults = []
    for node in nodes:
        for spec in node.inputs:
            source = written.get(node.takes.get(spec.name, ""))
            if source is not None and not _fits(source, spec):
                tensor = node.takes[spec.name]
                faults.append(f"{node.name}: takes {spec}; {tensor!r} is {source.type_text}")
    return faults


def _fits(source: TensorSpec, target: TensorSpec) -> bool:
    """Whether one tensor can be the other; the name of a dimension is the same wherever its size is."""
    return source.dtype == target.dtype and source.shape == target.shape


def _ordered(nodes: Sequence[Node], known: set[str]) -> list[Node]:
    """Return the nodes in an order in which each finds its inputs; those that wait for ever are left out."""
    ready: list[Node] = []
    known = set(known)
    while True:
        following = [node for node in nodes if node not in ready and set(node.takes.values()) <= known]
        if not following:
            return ready
        ready += following
        known |= {tensor for node in following for tensor in node.gives.values()}
