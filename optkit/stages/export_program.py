"""nn.Module -> ExportedProgram (.pt2), PyTorch's successor of TorchScript."""

import warnings
from pathlib import Path
from typing import ClassVar, Literal

from optkit import user_code
from optkit.artifact import Artifact, Format, Precision
from optkit.artifact.tensors import TensorSpec
from optkit.errors import StageError
from optkit.pytorch.forward import forward_call, plain_attention
from optkit.pytorch.source import load_module
from optkit.pytorch.tracing import by_position
from optkit.pytorch.weights import weights_bytes
from optkit.stages.base import Stage
from optkit.system.space import check_space


class ExportProgram(Stage):
    """Capture the model with torch.export and write it; a dynamic dimension that became a constant is an error."""

    accepts: ClassVar[frozenset[Format]] = frozenset({Format.PYTORCH})
    produces: ClassVar[Format] = Format.EXPORTED_PROGRAM
    filename: ClassVar[str] = "model.pt2"

    stage: Literal["export-program"] = "export-program"

    def make(self, source: Artifact, path: Path) -> Artifact:
        """Capture with every named dimension dynamic, and save."""
        import torch

        module = load_module(source)
        check_space(path.parent, weights_bytes(module), "the model")
        call = forward_call(module, source.inputs)
        feed = self.example(source)
        shapes: tuple[object, ...] = tuple(_dynamic(spec) for spec in call.inputs)
        called = by_position(module, call)
        with plain_attention(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                program = torch.export.export(
                    called,
                    tuple(torch.from_numpy(feed[spec.name]) for spec in call.inputs),
                    dynamic_shapes=shapes if called is module else (shapes,),
                    strict=False,
                )
                torch.export.save(program, path)
            except Exception as e:  # torch and the user's code raise many types
                cause = e if e.__cause__ is None else e.__cause__
                raise StageError(f"torch.export cannot capture the model: {user_code.describe(cause)}") from e
        return self.artifact(source, path, Precision.FP32, notes=["captured by torch.export"])


def _dynamic(spec: TensorSpec) -> dict[int, object]:
    from torch.export import Dim

    return {axis: Dim.DYNAMIC for axis, dim in enumerate(spec.shape) if isinstance(dim, str)}
