"""This machine, as compiled code sees it: torch, processor, C library, GPU; and the C++ compiler."""

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from optkit import deps
from optkit.artifact.compiled import Host
from optkit.errors import StageError

_CPUINFO = Path("/proc/cpuinfo")
# Of x86: what `-march=native` and torch's vectorized code may use. On other processors every feature counts.
_COMPILED_TO = re.compile(r"avx|amx|fma$|f16c|bmi|popcnt|abm|movbe|sse|ssse")


def this_host(gpu: bool) -> Host:
    """Return what decides here whether compiled code runs.

    Args:
        gpu: whether to look for a GPU, which imports torch.
    """
    library, version = platform.libc_ver()
    return Host(
        torch=deps.version("torch") or "",
        machine=platform.machine(),
        processor_features=_processor_features(),
        glibc=version if library == "glibc" else None,
        target=_target() if gpu else None,
    )


def find_compiler() -> tuple[str, str]:
    """Return the C++ compiler that torch uses and its first line about itself.

    Raises:
        StageError: there is none, or it does not start.
    """
    name = os.environ.get("CXX", "clang++" if platform.system() == "Darwin" else "g++")
    path = shutil.which(name)
    if path is None:
        raise StageError(
            f"{name}, the C++ compiler, is not on the PATH; AOTInductor compiles C++. Run: apt-get install g++ (or set CXX to another "
            f"compiler)"
        )
    try:
        found = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as e:
        raise StageError(f"{path}: does not start ({e}); expected a C++ compiler. Set CXX to one that does") from e
    return path, (found.stdout.splitlines() or [name])[0]


def _processor_features() -> tuple[str, ...]:
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    found = re.search(r"^(flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    if not found:
        return ()
    names = found[2].split()
    return tuple(sorted(name for name in names if found[1] == "Features" or _COMPILED_TO.match(name)))


def _target() -> str | None:
    import torch

    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return f"sm{major}{minor}"
