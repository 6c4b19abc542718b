"""Run one command and measure its whole process."""

import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

TIME_LIMIT = 124  # the exit code of a process that was killed at the limit


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a process took."""

    code: int
    seconds: float
    peak_mib: float  # resident memory of the largest of it and the processes that it waited for
    text: str  # stdout and stderr together


def measure(command: Sequence[str], environment: Mapping[str, str], log: Path, limit_s: float) -> Measured:
    """Run a command with its output in `log`; it and its children are killed at the limit."""
    with log.open("wb") as stream:
        started = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream, start_new_session=True)
        killed = False
        while True:
            found, status, usage = os.wait4(process.pid, os.WNOHANG)
            seconds = time.perf_counter() - started
            if found:
                break
            if seconds > limit_s and not killed:
                os.killpg(process.pid, signal.SIGKILL)
                killed = True
            time.sleep(0.02)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Measured(
        code=TIME_LIMIT if killed else process.returncode,
        seconds=seconds,
        peak_mib=usage.ru_maxrss / 1024,  # Linux counts in KiB
        text=log.read_text(errors="replace"),
    )
