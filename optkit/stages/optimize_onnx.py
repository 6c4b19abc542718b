"""ONNX -> ONNX with equal outputs and fewer nodes: constants are folded, dead and repeated nodes are removed."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from optkit import onnx_file
from optkit.artifact import Artifact, Format
from optkit.deps import require
from optkit.errors import OptkitError, StageError, first_line
from optkit.stages.base import Stage

if TYPE_CHECKING:
    import onnx
    import onnx_ir


class OptimizeOnnx(Stage):
    """Optimize the graph with onnxscript's optimizer, or with onnxslim where it is installed."""

    accepts: ClassVar[frozenset[Format]] = frozenset({Format.ONNX})
    produces: ClassVar[Format] = Format.ONNX
    filename: ClassVar[str] = "model.onnx"

    stage: Literal["optimize-onnx"] = "optimize-onnx"
    tool: Literal["onnxscript", "onnxslim"] = "onnxscript"

    def requires(self) -> tuple[str, ...]:
        """Return the module of the selected optimizer."""
        return (self.tool,)

    def make(self, source: Artifact, path: Path) -> Artifact:
        """Optimize, and refuse a file whose inputs or outputs have changed."""
        before = onnx_file.facts(source.path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = self._optimized(source.path)
                onnx_file.save(model, path, source.size_bytes)  # saving reads and decodes tensors
        except (OptkitError, OSError):
            raise
        except Exception as e:  # the optimizers raise plain exceptions of many types
            raise StageError(f"{self.tool} failed: {first_line(e)}") from e
        onnx_file.check(path)
        after = onnx_file.facts(path)
        for kind, old, new in (("inputs", before.inputs, after.inputs), ("outputs", before.outputs, after.outputs)):
            if [spec.name for spec in old] != [spec.name for spec in new]:
                raise StageError(f"{self.tool} changed the {kind} to {', '.join(s.name for s in new)}")
        nodes = f"{sum(before.nodes.values())} nodes before, {sum(after.nodes.values())} after"
        return self.artifact(source, path, source.precision, files=after.files, notes=[f"{self.tool}: {nodes}"])

    def _optimized(self, path: Path) -> "onnx.ModelProto | onnx_ir.Model":
        if self.tool == "onnxslim":
            slimmed: onnx.ModelProto = require("onnxslim").slim(onnx_file.load(path))
            return slimmed
        from onnxscript import optimizer

        optimized: onnx_ir.Model = optimizer.optimize(onnx_file.load_lazily(path))
        return optimized
