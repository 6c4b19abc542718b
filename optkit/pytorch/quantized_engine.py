"""PyTorch's quantized engines: the libraries that run its INT8 kernels on a CPU."""

import contextlib
import warnings
from collections.abc import Iterator

from optkit.errors import StageError


def pick_engine(wanted: str = "auto") -> str:
    """Return the requested engine; `auto` is x86 on x86 processors, and qnnpack on others such as Arm.

    Raises:
        StageError: this build of torch does not have it.
    """
    here = supported_engines()
    found = [name for name in (("x86", "qnnpack", "onednn") if wanted == "auto" else (wanted,)) if name in here]
    if not found:
        raise StageError(f"backend {wanted!r}: torch has {', '.join(here) or 'no quantized engine'} on this machine")
    return found[0]


def supported_engines() -> list[str]:
    """Return the engines of this build of torch for this processor."""
    import torch

    return [name for name in torch.backends.quantized.supported_engines if name != "none"]


def adds_in_16_bits(engine: str) -> bool:
    """Whether sums of two 8-bit products may saturate: x86 processors without VNNI (torch's quantization documentation)."""
    import torch

    return engine != "qnnpack" and not torch.cpu.get_capabilities().get("avx512_vnni", False)


@contextlib.contextmanager
def quantized_engine(name: str | None) -> Iterator[None]:
    """Use an engine inside the block; None keeps torch's choice. Loading a file packs INT8 weights for this engine."""
    import torch

    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name or before
    if name:
        _trigger_deprecation_warning()
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


def _trigger_deprecation_warning() -> None:
    """Trigger torch's deprecation warning for INT8 tensors where Python ignores it; torch gives it once a process.

    Otherwise the first INT8 tensor inside TorchScript would print it to stderr from C++, which no filter can stop.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.quint8)
        torch.quantize_per_channel(torch.zeros(1, 1), torch.ones(1), torch.zeros(1), 0, torch.qint8)
