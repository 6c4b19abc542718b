"""nn.Module -> TorchScript, by scripting (keeps control flow) or tracing (records one run)."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from optkit.artifact import Artifact, Format, Precision
from optkit.errors import StageError
from optkit.forward import torchscript_notices_off
from optkit.source import load_module
from optkit.stages.base import Stage
from optkit.stages.torchscript import save, to_torchscript

if TYPE_CHECKING:
    import torch


class ExportTorchScript(Stage):
    """Write a TorchScript file. `auto` scripts, and traces when the model cannot be scripted, and says why."""

    accepts: ClassVar[frozenset[Format]] = frozenset({Format.PYTORCH})
    produces: ClassVar[Format] = Format.TORCHSCRIPT
    filename: ClassVar[str] = "model.pt"

    stage: Literal["export-torchscript"] = "export-torchscript"
    method: Literal["auto", "script", "trace"] = "auto"
    strict: bool = False  # refuse a trace that turned a value of the example into a constant

    def make(self, source: Artifact, path: Path) -> Artifact:
        """Script or trace the module; warnings of the tracer that mean a baked-in value become notes."""
        module = load_module(source)
        with torchscript_notices_off():
            scripted, notes = self._scripted(module, source)
            save(scripted, path)
        return self.artifact(source, path, Precision.FP32, notes=notes)

    def _scripted(self, module: "torch.nn.Module", source: Artifact) -> "tuple[torch.jit.ScriptModule, list[str]]":
        import torch

        if isinstance(module, torch.jit.ScriptModule):
            return module, ["the source is TorchScript already"]
        scripted, how, baked_in = to_torchscript(module, source, self.method)
        if self.strict and baked_in:
            raise StageError(f"the trace baked in values, and strict allows none: {'; '.join(baked_in)}")
        return scripted, [how, *baked_in]
