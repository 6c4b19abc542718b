"""The machine of a measurement."""

import os
import platform
import sys
from pathlib import Path

from optkit.record import Record
from optkit.untrusted.paths import exists


class Machine(Record):
    """The facts of a machine that latency depends on."""

    cpu: str
    cores: int  # that this process may use
    memory_gib: float | None
    vnni: bool | None  # x86 integer dot products, which make INT8 fast; None where the system does not report it
    governor: str | None  # of the first processor's frequency, such as performance; None where it cannot be read
    gpu: str | None
    system: str
    python: str


def this_machine() -> Machine:
    """Return the facts of this machine; torch is imported for the GPU only where a driver is loaded."""
    flags = _cpuinfo("flags")
    return Machine(
        cpu=_cpuinfo("model name") or platform.processor() or platform.machine(),
        cores=usable_cores(),
        memory_gib=_memory_gib(),
        vnni=any("vnni" in flag for flag in flags.split()) if flags else None,
        governor=_governor(),
        gpu=gpu_name(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
    )


def load_average() -> float | None:
    """Return the number of runnable processes in the last minute, on average; None where the system does not report it."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def affinity() -> tuple[int, ...] | None:
    """Return the processors that this process may use; None where the system does not report them."""
    return tuple(sorted(os.sched_getaffinity(0))) if sys.platform == "linux" else None


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpu_name() -> str | None:
    """Return the name of the first GPU that torch can use; None where there is none."""
    if sys.platform == "linux" and not exists(Path("/dev/nvidiactl")):
        return None  # no driver: spare the import of torch
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _cpuinfo(key: str) -> str:
    """Return the value of a key of the first processor in /proc/cpuinfo; empty on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def _governor() -> str | None:
    """Return Linux's frequency governor; most virtual machines have none."""
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip()
    except OSError:
        return None


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
