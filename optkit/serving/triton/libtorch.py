"""TorchScript on Triton: the models that its PyTorch backend supports, and the names of their tensors.

The rules are from https://github.com/triton-inference-server/pytorch_backend (src/libtorch.cc).
"""

from typing import TYPE_CHECKING, Any

from optkit.artifact import Artifact
from optkit.artifact.tensors import TensorSpec
from optkit.errors import ArtifactError, StageError, first_line
from optkit.pytorch.forward import torchscript_notices_off

if TYPE_CHECKING:
    import torch


def libtorch_names(artifact: Artifact) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return inputs and outputs with their names in Triton.

    Inputs have the names of forward's arguments, or INPUT__0, INPUT__1... in their order. Outputs have no names in TorchScript; Triton
    calls them OUTPUT__0, OUTPUT__1...

    Raises:
        StageError: the backend cannot serve this forward.
        ArtifactError: the file cannot be loaded.
    """
    module = _load(artifact)
    schema: Any = module.forward.schema  # type: ignore[attr-defined]  # a ScriptMethod has it, torch's annotations do not
    if any(getattr(part, "training", False) for part in module.modules()):
        raise StageError(
            f"{artifact.path.name}: was saved in training mode; expected evaluation mode, because Triton does not change the mode. "
            f"Call eval() before you script or trace it."
        )
    scalars = [str(spec) for spec in (*artifact.inputs, *artifact.outputs) if not spec.shape]
    if scalars:
        raise StageError(
            f"{artifact.path.name}: {scalars[0]} is a scalar; Triton's PyTorch backend does not support scalars. "
            f"Give it a dimension, for example x.reshape(1), or package an ONNX artifact."
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
    """Return the names of forward's arguments. Every argument must be a tensor and belong to one input."""
    arguments = [argument for argument in schema.arguments if argument.type.kind() != "ClassType"]
    tensors = [argument.name for argument in arguments if argument.type.kind() == "TensorType"]
    if len(tensors) != len(arguments) or len(arguments) != len(artifact.inputs):
        signature = ", ".join(f"{argument.name}: {argument.type}" for argument in arguments)
        names = ", ".join(spec.name for spec in artifact.inputs)
        raise StageError(
            f"{artifact.path.name}: the signature is forward({signature}); expected one tensor for each input: {names}. "
            f"Wrap the model so that forward takes only these, or package an ONNX artifact."
        )
    return tensors


def _check_returns(artifact: Artifact, schema: Any) -> None:
    """Check that forward returns a tensor or a flat tuple of tensors, as many as declared."""
    returned = schema.returns[0].type
    parts = returned.elements() if returned.kind() == "TupleType" else [returned]
    if any(part.kind() != "TensorType" for part in parts) or len(parts) != len(artifact.outputs):
        raise StageError(
            f"{artifact.path.name}: forward returns {returned}; expected a tensor or a flat tuple of tensors: "
            f"{', '.join(spec.name for spec in artifact.outputs)}. Return a tuple, or package an ONNX artifact."
        )
