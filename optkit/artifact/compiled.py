"""Code that was compiled ahead of time by AOTInductor: what it was compiled for, and whether another machine would load it."""

import re
from typing import Literal

from optkit.artifact.engine import sm_text
from optkit.artifact.tensors import DimRange
from optkit.record import Record
from optkit.untrusted.names import TensorName


class Host(Record):
    """What decides whether compiled code runs on a machine; None where it is not known."""

    torch: str
    machine: str  # as x86_64
    processor_features: tuple[str, ...]  # by the system's names, as avx512f; empty where the system does not list them
    glibc: str | None
    target: str | None  # the compute capability of its GPU, as sm90; None without one


class CompiledFacts(Record):
    """How a package was compiled, and the sizes that it was compiled for: the code itself checks none of them."""

    torch: str
    device: Literal["cpu", "cuda"]
    target: str | None  # of the GPU, as sm90; None for a CPU
    gpu: str | None
    machine: str
    processor_features: tuple[str, ...]  # that the compiler and torch may have used
    instruction_set: str | None  # that torch's vectorized code uses, as AVX512 AVX512_VNNI
    glibc: str | None  # the newest symbol of the C library that the code uses
    needed: tuple[str, ...]  # the shared libraries that it needs
    compiler: str
    dims: dict[TensorName, DimRange]
    settings: dict[str, str | int | bool | None]
    compile_s: float
    load_s: float  # in a fresh process
    first_call_s: float


def compiled_refusal(compiled: CompiledFacts, host: Host) -> str | None:
    """Return the reason why compiled code would not run on a machine, in one sentence; None where none is known.

    Only what is dangerous is refused: a package of an older torch, for fewer instructions or an older C library loads.
    """
    again = f"compile it there, with --device {compiled.device}"
    if compiled.machine != host.machine:
        return f"compiled for {compiled.machine}, this is {host.machine}: {again}"
    if _release(compiled.torch) > _release(host.torch):
        return f"compiled by torch {compiled.torch}, this is the older torch {host.torch}: {again}"
    if compiled.device == "cuda" and host.target != compiled.target:
        built_for, here = sm_text(compiled.target or "an unknown GPU"), sm_text(host.target or "no GPU")
        return f"compiled for {built_for}, this is {here}: {again}"
    missing = sorted(set(compiled.processor_features) - set(host.processor_features))
    if missing and host.processor_features:
        return f"compiled for a processor with {', '.join(missing)}, which the one here does not have: {again}"
    if compiled.glibc and host.glibc and _numbers(compiled.glibc) > _numbers(host.glibc):
        return f"needs the C library GLIBC {compiled.glibc}, this is {host.glibc}: {again}"
    return None


def _release(version: str) -> tuple[int, ...]:
    """Return major and minor: torch keeps its interface for compiled code within them."""
    return _numbers(version)[:2]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
