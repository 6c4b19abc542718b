"""PyTorch's quantized engines: the libraries that run its INT8 kernels on a CPU."""

import contextlib
import warnings
from collections.abc import Iterator

from optkit.errors import StageError


def pick_engine(wanted: str = "auto") -> str:
    """Return the engine that is asked for; `auto` is x86 on such processors, and qnnpack elsewhere, as on Arm.

    Raises:
        StageError: this build of torch does not have it.
    """
    here = supported_engines()
    found = [name for name in (("x86", "qnnpack", "onednn") if wanted == "auto" else (wanted,)) if name in here]
    if not found:
        raise StageError(f"backend {wanted!r}: torch has {', '.join(here) or 'no quantized engine'} on this machine")
    return found[0]


def supported_engines() -> list[str]:
    """Return the engines that this build of torch has for this processor."""
    import torch

    return [name for name in torch.backends.quantized.supported_engines if name != "none"]


def adds_in_16_bits(engine: str) -> bool:
    """Whether sums of two 8-bit products may saturate: on an x86 processor without VNNI (torch's quantization documentation)."""
    import torch

    return engine != "qnnpack" and not torch.cpu.get_capabilities().get("avx512_vnni", False)


@contextlib.contextmanager
def quantized_engine(name: str | None) -> Iterator[None]:
    """Use an engine inside the block; None leaves torch's own choice. INT8 weights are packed for it when a file is loaded."""
    import torch

    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name or before
    if name:
        _deprecation_told()
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


def _deprecation_told() -> None:
    """Let torch tell Python's warnings, where they are ignored, what it tells once a process: that INT8 tensors are deprecated.

    The first one to be made inside TorchScript would print it to stderr from C++, past every filter.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.quint8)
        torch.quantize_per_channel(torch.zeros(1, 1), torch.ones(1), torch.zeros(1), 0, torch.qint8)
