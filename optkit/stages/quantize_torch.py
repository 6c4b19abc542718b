"""nn.Module -> INT8 TorchScript, for servers that run PyTorch on CPUs: TorchServe, and Triton's PyTorch backend.

It uses torch's eager and FX quantization, which torch calls deprecated, because what is to come in their place gives no such file.
Measured with torch 2.13 and torchao 0.18 on a processor with VNNI, one thread: the result of torchao's pt2e traced to TorchScript keeps
its convolutions in float between Q/DQ operators (recipes/digits: 821 kB and 0.3 times the speed of FP32, which has 657 kB), those operators do
not exist in a process that has only torch, so that the file cannot be loaded there, and it cannot be scripted. Its integer kernels come from
torch.compile, in the process that compiles. FX gives integer kernels: ResNet-18 at 224x224 in 11.9 MB and 6 times as fast.
"""

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from optkit import user_code
from optkit.artifact import Artifact, Format, Precision
from optkit.artifact.tensors import batch_dim
from optkit.data import absolute_data
from optkit.errors import OptkitError, StageError
from optkit.progress import track
from optkit.pytorch.forward import forward_call
from optkit.pytorch.quantized_engine import adds_in_16_bits, pick_engine, quantized_engine
from optkit.pytorch.source import load_module
from optkit.pytorch.torchscript import write_torchscript
from optkit.quantization.torch_quantizer import layers_in_float, layers_in_int8, quantize_dynamic, quantize_static
from optkit.stages.base import NO_CALIBRATION, Stage

if TYPE_CHECKING:
    import torch


_RECURRENT = ("LSTM", "GRU", "RNN")


class QuantizeTorch(Stage):
    """Quantize an nn.Module with PyTorch and write TorchScript, which runs without the model's code."""

    accepts: ClassVar[frozenset[Format]] = frozenset({Format.PYTORCH})
    produces: ClassVar[Format] = Format.TORCHSCRIPT
    filename: ClassVar[str] = "model.pt"

    stage: Literal["quantize-torch"] = "quantize-torch"
    mode: Literal["dynamic", "static"] = "dynamic"
    calibration: str | None = None  # file.py:function or a folder of .npz; a recipe's data.calibration where not given
    backend: Literal["auto", "x86", "fbgemm", "onednn", "qnnpack"] = "auto"  # torch's kernels; qnnpack is for Arm
    per_channel: bool = True
    # 7-bit activations, for processors that add products in 16 bits; None: where the processor is an x86 without VNNI
    reduce_range: bool | None = None

    @property
    def data(self) -> str | None:
        """The calibration data; dynamic quantization needs none."""
        return self.calibration if self.mode == "static" else None

    def faults(self, calibration: str | None, evaluation: str | None) -> Iterator[str]:
        """Yield what the step needs and a recipe does not give, calibration data above all."""
        if self.mode == "static" and not self.data:
            yield NO_CALIBRATION
        yield from super().faults(calibration, evaluation)

    def with_data(self, base: Path, calibration: str | None) -> Self:
        """Return the stage with its own calibration data made absolute, or a recipe's where it has none."""
        own = absolute_data(self.calibration, base) if self.calibration else calibration
        return self.model_copy(update={"calibration": own})

    def make(self, source: Artifact, path: Path) -> Artifact:
        """Quantize, turn into TorchScript and save; refuse a model in which nothing became INT8."""
        import torch

        if self.mode == "static" and not self.calibration:
            raise StageError("no calibration data: ranges of activations are never guessed. Give --calibration DATA.")
        engine = pick_engine(self.backend)
        reduced = adds_in_16_bits(engine) if self.reduce_range is None else self.reduce_range
        module = load_module(source)
        if isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule):
            raise StageError(
                "the model is a captured graph (TorchScript or .pt2), whose layers cannot be exchanged; expected Python code, as in "
                "model.py:build. Or export it to ONNX and quantize that."
            )
        with quantized_engine(engine), _quiet(), _fast_path_off():
            quantized, notes = self._quantized(module, source, engine, reduced)
            written = write_torchscript(quantized.eval(), source, path)  # FX gives new modules, in training mode
        bits = 7 if reduced else 8
        notes += [
            f"{_mb(_weight_bytes(module))} of weights in FP32, {_mb(path.stat().st_size)} in this file",
            f"{self.mode}, {bits}-bit activations, engine {engine}{'' if reduced or engine == 'qnnpack' else ': for x86 with VNNI'}",
            # Scales are numbers, and the tracer says of each that it is a constant from now on.
            *(note for note in written if "/torch/_ops.py:" not in note),
        ]
        return self.artifact(source, path, Precision.INT8, notes=notes).model_copy(update={"torch_engine": engine})

    def _quantized(
        self, module: "torch.nn.Module", source: Artifact, engine: str, reduced: bool
    ) -> "tuple[torch.nn.Module, list[str]]":
        """Return the quantized module, and notes that say which layers became INT8 and which did not."""
        options = {"per_channel": self.per_channel, "reduce_range": reduced}
        notes: list[str] = []
        try:
            if self.mode == "dynamic":
                quantized = quantize_dynamic(module, **options)
            else:
                quantized, notes = quantize_static(module, engine, lambda m: self._calibrate(m, source), **options)
        except OptkitError:
            raise
        except Exception as e:  # torch raises many types here, and copies the user's module
            raise StageError(f"the model cannot be quantized: {user_code.describe(e)}") from e
        done, left = layers_in_int8(quantized), layers_in_float(quantized)
        if not done:
            raise StageError(
                f"nothing became INT8: {_why_float(self.mode, left) or 'the model has no layer with weights'}"
            )
        if self.mode == "dynamic" and any(kind.startswith(_RECURRENT) for kind in done):
            notes.append("recurrent layers have 7-bit activations: torch leaves no choice there")
        counts = f"in INT8: {_listed(done)}"
        return quantized, [f"{counts}; {_why_float(self.mode, left)}" if left else counts, *notes]

    def _calibrate(self, module: "torch.nn.Module", source: Artifact) -> None:
        import torch

        from optkit.quantization.calibration.batches import rows_of
        from optkit.quantization.calibration.collect import check_enough

        feeds = self.feeds(source)
        assert feeds is not None
        call = forward_call(module, source.inputs)
        samples = 0
        with torch.no_grad():
            for number, feed in enumerate(track(feeds, "calibrate")):
                args, kwargs = call.arguments({name: torch.from_numpy(array.copy()) for name, array in feed.items()})
                try:
                    module(*args, **kwargs)
                except Exception as e:
                    raise StageError(f"the model cannot be run on feed {number}: {user_code.describe(e)}") from e
                samples += rows_of(feed) if batch_dim(source.inputs) else 1
        check_enough(samples)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep away what torch says of its own API to its callers; the module docstring says it once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _fast_path_off() -> Iterator[None]:
    """Let attention run layer by layer: torch's fused transformer layers read weights that are INT8 now."""
    import torch

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _why_float(mode: str, left: Counter[str]) -> str:
    if not left:
        return ""
    reasons: dict[str, Counter[str]] = {}
    for kind, n in left.items():
        reasons.setdefault(_reason(mode, kind), Counter())[kind] = n
    return "in float: " + "; ".join(f"{_listed(kinds)} ({why})" for why, kinds in reasons.items())


def _reason(mode: str, kind: str) -> str:
    """Return why a kind of layer stayed in float."""
    if mode == "dynamic":
        return "only mode static quantizes convolutions" if kind.startswith("Conv") else "no INT8 form in torch"
    if kind.startswith((*_RECURRENT, "Embedding")):
        return "only mode dynamic quantizes these"
    return "no INT8 form in torch, or in a module that FX does not enter"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))


def _weight_bytes(module: "torch.nn.Module") -> int:
    return sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.3g} MB"
