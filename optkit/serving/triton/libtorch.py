"""TorchScript on Triton: what its PyTorch backend can serve, and the names by which it finds the tensors.

The rules are those of https://github.com/triton-inference-server/pytorch_backend (src/libtorch.cc).
"""

from typing import TYPE_CHECKING, Any

from optkit.artifact import Artifact
from optkit.artifact.tensors import TensorSpec
from optkit.errors import ArtifactError, StageError, first_line
from optkit.pytorch.forward import torchscript_notices_off

if TYPE_CHECKING:
    import torch


def libtorch_names(artifact: Artifact) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return inputs and outputs under their names in Triton.

    Inputs go by the names of forward's arguments, or by INPUT__0, INPUT__1... in its order; outputs have no names in
    TorchScript and go by OUTPUT__0, OUTPUT__1...

    Raises:
        StageError: the backend cannot serve this forward.
        ArtifactError: the file cannot be loaded.
    """
    module = _load(artifact)
    schema: Any = module.forward.schema  # type: ignore[attr-defined]  # a ScriptMethod has it, torch's annotations do not
    if any(getattr(part, "training", False) for part in module.modules()):
        raise StageError(
            f"{artifact.path.name}: was saved in training mode, and Triton runs it as it was saved. "
            f"Call eval() before it is scripted or traced."
        )
    scalars = [str(spec) for spec in (*artifact.inputs, *artifact.outputs) if not spec.shape]
    if scalars:
        raise StageError(
            f"{artifact.path.name}: {scalars[0]} is a scalar, which Triton's PyTorch backend does not serve. "
            f"Give it a dimension, as in x.reshape(1), or package an ONNX artifact."
        )
    arguments = _arguments(artifact, schema)
    _check_returns(artifact, schema)
    if {spec.name for spec in artifact.inputs} == set(arguments):
        inputs = artifact.inputs
    else:
        inputs = tuple(spec.model_copy(update={"name": f"INPUT__{i}"}) for i, spec in enumerate(artifact.inputs))
    return inputs, tuple(spec.model_copy(update={"name": f"OUTPUT__{i}"}) for i, spec in enumerate(artifact.outputs))


def _load(artifact: Artifact) -> "torch.jit.ScriptModule":
    import torch

    try:
        with torchscript_notices_off():
            module: torch.jit.ScriptModule = torch.jit.load(str(artifact.path), map_location="cpu")
    except (RuntimeError, ValueError) as e:
        raise ArtifactError(f"{artifact.path}: cannot be loaded as TorchScript ({first_line(e)})") from e
    return module


def _arguments(artifact: Artifact, schema: Any) -> list[str]:
    """Return the names of forward's arguments; every one must be a tensor, and one of the inputs."""
    arguments = [argument for argument in schema.arguments if argument.type.kind() != "ClassType"]
    tensors = [argument.name for argument in arguments if argument.type.kind() == "TensorType"]
    if len(tensors) != len(arguments) or len(arguments) != len(artifact.inputs):
        signature = ", ".join(f"{argument.name}: {argument.type}" for argument in arguments)
        names = ", ".join(spec.name for spec in artifact.inputs)
        raise StageError(
            f"{artifact.path.name}: is forward({signature}); Triton's PyTorch backend gives a tensor for every argument, "
            f"here {names}. Wrap the model so that forward takes only these, or package an ONNX artifact."
        )
    return tensors


def _check_returns(artifact: Artifact, schema: Any) -> None:
    """Refuse a forward that returns anything else than a tensor or a flat tuple of as many tensors as declared."""
    returned = schema.returns[0].type
    parts = returned.elements() if returned.kind() == "TupleType" else [returned]
    if any(part.kind() != "TensorType" for part in parts) or len(parts) != len(artifact.outputs):
        raise StageError(
            f"{artifact.path.name}: forward returns {returned}; Triton's PyTorch backend takes a tensor or a flat tuple "
            f"of tensors, here {', '.join(spec.name for spec in artifact.outputs)}. Return a tuple, or package an ONNX artifact."
        )
