"""TorchScript files that optkit did not make: their contract, found by running them, and a form that servers take."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit.artifact import Artifact, Format, Precision
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.data import random_feed
from optkit.errors import ArtifactError, first_line
from optkit.hashing import sha256_of
from optkit.pytorch.forward import call_forward, torchscript_notices_off
from optkit.pytorch.outputs import find_outputs

if TYPE_CHECKING:
    import torch

_NUMBERS = itertools.count()  # torch takes one definition of forward for each name of a class in a process


def describe_script(path: Path, inputs: Sequence[TensorSpec], dims: Mapping[str, DimRange]) -> Artifact:
    """Return the artifact of a TorchScript file. Running it gives its outputs.

    Raises:
        ArtifactError: it is not TorchScript.
        ModelError: forward does not take these inputs, or raises.
    """
    module = load_script(path)
    with torchscript_notices_off():
        outputs = find_outputs(module, inputs, dims).specs
    return Artifact(
        path=path,
        format=Format.TORCHSCRIPT,
        precision=Precision.FP32,  # the file does not state it, and no package needs it
        inputs=tuple(inputs),
        outputs=outputs,
        dims=dict(dims),
        sha256=sha256_of(path),
    )


def load_script(path: Path) -> "torch.jit.ScriptModule":
    """Load a TorchScript file for the CPU, in evaluation mode.

    Raises:
        ArtifactError: it is not TorchScript.
    """
    import torch

    try:
        with torchscript_notices_off():
            module: torch.jit.ScriptModule = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError) as e:
        raise ArtifactError(
            f"{path}: cannot be loaded as TorchScript ({first_line(e)}); expected a scripted or traced model. "
            f"Weights alone need their module: export it with optkit export."
        ) from e
    return module.eval()


def argument_names(module: "torch.jit.ScriptModule") -> list[str]:
    """Return the names of the arguments of forward."""
    schema: Any = module.forward.schema  # type: ignore[attr-defined]  # a ScriptMethod has it, torch's annotations do not
    return [argument.name for argument in schema.arguments if argument.type.kind() != "ClassType"]


def served_form(artifact: Artifact, folder: Path) -> Artifact | None:
    """Write a form of a TorchScript model that takes only its inputs and returns its tensors as a flat tuple.

    Servers take no lists and dicts, and no arguments beside tensors. Return None if the model needs no other form.

    Args:
        artifact: a TorchScript model.
        folder: where the other form is written, under the name of the file.

    Raises:
        ArtifactError: it cannot be loaded.
        ModelError: forward raises.
    """
    import torch

    module = load_script(artifact.path)
    schema: Any = module.forward.schema  # type: ignore[attr-defined]  # as above
    takes = [argument.type.kind() for argument in schema.arguments if argument.type.kind() != "ClassType"]
    plain = takes == ["TensorType"] * len(artifact.inputs)
    if plain and _is_flat(schema.returns[0].type):
        return None
    with torchscript_notices_off():
        found = call_forward(module, artifact.inputs, random_feed(artifact.inputs, _usual(artifact.dims)))
    names = argument_names(module)[: len(artifact.inputs)]
    results = ", ".join(_tensors(found, "result"))
    arguments = ", ".join(names)

    def keep(self: Any) -> None:
        torch.jit.ScriptModule.__init__(self)
        self.module = module

    made_class: Any = type(torch.jit.ScriptModule)
    wrapper = made_class(f"Served{next(_NUMBERS)}", (torch.jit.ScriptModule,), {"__init__": keep})()
    wrapper.define(f"def forward(self, {arguments}):\n  result = self.module({arguments})\n  return {results}\n")
    path = folder / artifact.path.name
    wrapper.eval().save(str(path))
    made = describe_script(path, artifact.inputs, artifact.dims)
    named = [one.model_copy(update={"name": own.name}) for one, own in zip(made.outputs, artifact.outputs, strict=True)]
    return made.model_copy(update={"outputs": tuple(named), "precision": artifact.precision})


def _is_flat(returned: Any) -> bool:
    parts = returned.elements() if returned.kind() == "TupleType" else [returned]
    return all(part.kind() == "TensorType" for part in parts)


def _tensors(value: object, text: str) -> Iterator[str]:
    """Yield an expression for each tensor of a result, in the order of `flatten`."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _tensors(part, f"{text}[{json.dumps(key)}]")
    elif isinstance(value, (tuple, list)):
        for i, part in enumerate(value):
            yield from _tensors(part, f"{text}[{i}]")
    elif value is not None:
        yield text


def _usual(dims: Mapping[str, DimRange]) -> dict[str, int]:
    return {name: r.opt for name, r in dims.items()}
