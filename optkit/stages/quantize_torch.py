"""nn.Module -> INT8 TorchScript, for servers that run PyTorch on CPUs: TorchServe, and Triton's PyTorch backend.

It uses torch's eager and FX quantization, which torch has deprecated, because their replacement cannot write such a file. Measured with
torch 2.13 and torchao 0.18 on a processor with VNNI, one thread: the TorchScript trace of torchao's pt2e keeps its convolutions in float
between Q/DQ operators (recipes/digits: 821 kB and 0.3 times the speed of FP32, which has 657 kB). These operators do not exist in a process
with torch alone, so the file cannot be loaded there. It cannot be scripted either. Its integer kernels come from torch.compile, in the
process that compiles. FX gives integer kernels: ResNet-18 at 224x224 in 11.9 MB and 6 times as fast.
"""

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from optkit import user_code
from optkit.artifact import Artifact, Format, Precision, environment
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
    """Quantize an nn.Module with PyTorch and write TorchScript, which runs without the code of the model."""

    accepts: ClassVar[frozenset[Format]] = frozenset({Format.PYTORCH})
    produces: ClassVar[Format] = Format.TORCHSCRIPT
    filename: ClassVar[str] = "model.pt"

    stage: Literal["quantize-torch"] = "quantize-torch"
    mode: Literal["dynamic", "static"] = "dynamic"
    calibration: str | None = None  # file.py:function or a folder of .npz; None: a recipe's data.calibration
    backend: Literal["auto", "x86", "fbgemm", "onednn", "qnnpack"] = "auto"  # torch's kernels; qnnpack is for Arm
    per_channel: bool = True
    # 7-bit activations, for processors that add products in 16 bits; None: where the processor is an x86 without VNNI
    reduce_range: bool | None = None

    @property
    def data(self) -> str | None:
        """The calibration data; dynamic quantization needs none."""
        return self.calibration if self.mode == "static" else None

    def hardware(self) -> dict[str, str]:
        """Return the processor: the number of bits is chosen for it."""
        return environment.hardware()

    def faults(self, calibration: str | None, evaluation: str | None) -> Iterator[str]:
        """Yield what the step needs and a recipe does not give, calibration data above all."""
        if self.mode == "static" and not self.data:
            yield NO_CALIBRATION
        yield from super().faults(calibration, evaluation)

    def with_data(self, base: Path, calibration: str | None) -> Self:
        """Return the stage with absolute paths of its own calibration data, or with the recipe's calibration data."""
        own = absolute_data(self.calibration, base) if self.calibration else calibration
        return self.model_copy(update={"calibration": own})

    def make(self, source: Artifact, path: Path) -> Artifact:
        """Quantize, convert to TorchScript and save; refuse a model in which nothing became INT8."""
        import torch

        if self.mode == "static" and not self.calibration:
            raise StageError("no calibration data: ranges of activations are never guessed. Give --calibration DATA.")
        engine = pick_engine(self.backend)
        reduced = adds_in_16_bits(engine) if self.reduce_range is None else self.reduce_range
        module = load_module(source)
        if isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule):
            raise StageError(
                "the model is a captured graph (TorchScript or .pt2), whose layers cannot be replaced; expected Python code, as in "
                "model.py:build. Or export the model to ONNX and quantize the ONNX file."
            )
        with quantized_engine(engine), _quiet(), _fast_path_off():
            quantized, notes = self._quantized(module, source, engine, reduced)
            written = write_torchscript(
                quantized.eval(), source, path, self.example(source)
            )  # FX returns new modules in training mode
        bits = 7 if reduced else 8
        notes += [
            f"{_mb(_weight_bytes(module))} of weights in FP32, {_mb(path.stat().st_size)} in this file",
            f"{self.mode}, {bits}-bit activations, engine {engine}{'' if reduced or engine == 'qnnpack' else ': for x86 with VNNI'}",
            # Scales are numbers, and the tracer warns about each that it becomes a constant.
            *(note for note in written if "/torch/_ops.py:" not in note),
        ]
        return self.artifact(source, path, Precision.INT8, notes=notes).model_copy(update={"torch_engine": engine})

    def _quantized(
        self, module: "torch.nn.Module", source: Artifact, engine: str, reduced: bool
    ) -> "tuple[torch.nn.Module, list[str]]":
        """Return the quantized module, and notes on the layers in INT8 and in float."""
        options = {"per_channel": self.per_channel, "reduce_range": reduced}
        notes: list[str] = []
        try:
            if self.mode == "dynamic":
                quantized = quantize_dynamic(module, **options)
            else:
                quantized, notes = quantize_static(module, engine, lambda m: self._calibrate(m, source), **options)
        except OptkitError:
            raise
        except Exception as e:  # torch raises many types here, and also copies the user's module
            raise StageError(f"the model cannot be quantized: {user_code.describe(e)}") from e
        done, left = layers_in_int8(quantized), layers_in_float(quantized)
        if not done:
            raise StageError(
                f"nothing became INT8: {_why_float(self.mode, left) or 'the model has no layer with weights'}"
            )
        if self.mode == "dynamic" and any(kind.startswith(_RECURRENT) for kind in done):
            notes.append("recurrent layers have 7-bit activations: torch has no other option")
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
    """Suppress torch's deprecation warnings; the module docstring has the reason."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _fast_path_off() -> Iterator[None]:
    """Run attention layer by layer: torch's fused transformer layers cannot read INT8 weights."""
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
    """Return the reason why a kind of layer stayed in float."""
    if mode == "dynamic":
        return "only mode static quantizes convolutions" if kind.startswith("Conv") else "torch has no INT8 version"
    if kind.startswith((*_RECURRENT, "Embedding")):
        return "only mode dynamic quantizes these"
    return "torch has no INT8 version, or FX does not trace its module"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))


def _weight_bytes(module: "torch.nn.Module") -> int:
    return sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.3g} MB"
