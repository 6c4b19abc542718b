"""Run one command and measure its whole process."""

import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

TIME_LIMIT = 124  # the exit code of a process that was killed at the limit
_PATIENCE = 5  # a process that waits is killed after so many times the limit on the clock
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Measured:
    """The time and memory of a process."""

    code: int
    seconds: float
    cpu_seconds: float  # user and system, of it and the processes that it waited for
    peak_mib: float  # resident memory of the largest of them
    text: str  # stdout and stderr together


def measure(command: Sequence[str], environment: Mapping[str, str], log: Path, limit_s: float) -> Measured:
    """Run a command with its output in `log`.

    It and its children are killed after `limit_s` seconds of processor time, so that a busy machine does not decide who is in time.
    """
    with log.open("wb") as stream:
        started = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream, start_new_session=True)
        killed = False
        while True:
            found, status, usage = os.wait4(process.pid, os.WNOHANG)
            seconds = time.perf_counter() - started
            if found:
                break
            if not killed and (_cpu_seconds(process.pid) > limit_s or seconds > _PATIENCE * limit_s):
                os.killpg(process.pid, signal.SIGKILL)
                killed = True
            time.sleep(0.02)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Measured(
        code=TIME_LIMIT if killed else process.returncode,
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_mib=usage.ru_maxrss / 1024,  # Linux counts in KiB
        text=log.read_text(errors="replace"),
    )


def without_torchvision(folder: Path) -> Path:
    """Return a folder that, on a Python's path, makes torchvision look absent to a tool that fails with its CUDA build."""
    site = folder / "without_torchvision"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import sys\nsys.modules['torchvision'] = None\n")
    return site


def _cpu_seconds(pid: int) -> float:
    """Return the processor time of a process that runs, with that of the children that it waited for; see proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(fields[i]) for i in (11, 12, 13, 14)) / _TICKS_PER_S
