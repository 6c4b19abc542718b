"""What an artifact or a result depends on besides files and settings: library versions, optkit's own code, the processor, the GPU.

Every key of a reused result has these. A benchmark, a proof or an artifact of other libraries or of another processor is made again.
"""

import functools
import hashlib
import platform
from pathlib import Path

from optkit import deps

_PACKAGE = Path(__file__).parent.parent
# They show results or start a run, and change none; `serving` is in the keys of packages alone.
_WITHOUT_EFFECT = ("api", "cli", "loadtest", "report", "serving")
# The instructions for which PyTorch and ONNX Runtime have kernels of their own; another kernel rounds or saturates in another way.
_INSTRUCTIONS = ("avx", "amx", "fma", "sse4_2", "asimd", "bf16", "i8mm", "sve", "fphp")
_NVIDIA = Path("/proc/driver/nvidia")
RUNTIMES = ("tensorrt", "tensorrt-cu13-bindings", "tensorrt-rtx", "tensorrt-rtx-cu13-bindings", "torchao")


def versions(*distributions: str, packages: bool = False) -> dict[str, str]:
    """Return name -> version of everything in software that a result depends on, with the hash of optkit's own code.

    Args:
        distributions: further libraries, where they are installed.
        packages: whether the result is a package for a server.
    """
    found = {name: deps.version(name) for name in distributions}
    return {
        **deps.built_with(),
        **{name: version for name, version in found.items() if version},
        "optkit code": own_code_sha256(packages=packages),
    }


def hardware(*, gpu: bool = False) -> dict[str, str]:
    """Return what of the machine a result depends on: the instructions of its processor, and of its GPU the model and driver.

    Args:
        gpu: whether the result was found on the GPU.
    """
    return {"processor": processor()} | ({"gpu": _gpu()} if gpu else {})


@functools.cache
def own_code_sha256(*, packages: bool = False, report: bool = False) -> str:
    """Return the hash of optkit's sources that can change an artifact or a result; also of those of packages and of the report."""
    digest = hashlib.sha256()
    besides = {name for name, included in (("serving", packages), ("report", report)) if included}
    for file in sorted(file for file in _PACKAGE.rglob("*") if file.suffix in (".py", ".html", ".css", ".js")):
        inside = file.relative_to(_PACKAGE)
        if inside.parts[0] not in _WITHOUT_EFFECT or inside.parts[0] in besides:
            digest.update(f"\0{inside.as_posix()}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


@functools.cache
def processor() -> str:
    """Return the architecture and the instructions that kernels are chosen by, as `x86_64 avx avx2 fma`."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}".strip()
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return " ".join([platform.machine(), *sorted(flag for flag in set(flags) if flag.startswith(_INSTRUCTIONS))])


@functools.cache
def _gpu() -> str:
    """Return the models of the GPUs and the driver; empty where there is none. No library is imported for it."""
    try:
        driver = (_NVIDIA / "version").read_text(encoding="utf-8").partition("\n")[0]
        files = sorted((_NVIDIA / "gpus").glob("*/information"))
        models = [line for file in files for line in file.read_text().splitlines() if line.startswith("Model")]
    except OSError:
        return ""
    return "; ".join([driver, *models])
