"""nn.Module -> TorchScript, by scripting (keeps control flow) or tracing (records one run)."""

from pathlib import Path
from typing import ClassVar, Literal

from optkit.artifact import Artifact, Format, Precision
from optkit.pytorch.forward import torchscript_notices_off
from optkit.pytorch.source import load_module
from optkit.pytorch.torchscript import write_torchscript
from optkit.pytorch.weights import weights_bytes
from optkit.stages.base import Stage
from optkit.system.space import check_space


class ExportTorchScript(Stage):
    """Write a TorchScript file. `auto` scripts; when the model cannot be scripted, it traces, and a note has the reason."""

    accepts: ClassVar[frozenset[Format]] = frozenset({Format.PYTORCH})
    produces: ClassVar[Format] = Format.TORCHSCRIPT
    filename: ClassVar[str] = "model.pt"

    stage: Literal["export-torchscript"] = "export-torchscript"
    method: Literal["auto", "script", "trace"] = "auto"
    strict: bool = False  # refuse a trace that turned a value of the example into a constant

    def make(self, source: Artifact, path: Path) -> Artifact:
        """Script or trace the module; the tracer's warnings about baked-in values become notes."""
        module = load_module(source)
        check_space(path.parent, weights_bytes(module), "the model")
        with torchscript_notices_off():
            notes = write_torchscript(module, source, path, self.example(source), self.method, strict=self.strict)
        return self.artifact(source, path, Precision.FP32, notes=notes)
