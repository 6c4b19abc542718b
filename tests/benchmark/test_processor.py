"""How long the threads of a process wait for a processor: Linux's own numbers, and one core that two processes want."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from optkit.artifact.findings import CPU_CONTENDED
from optkit.benchmark.processor import ProcessorTime

ONE_CORE = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
if sys.argv[2] == "other":
    print(flush=True)
    while True:
        pass
from optkit.benchmark import BenchSettings
from optkit.benchmark.timing import time_block
block = time_block(lambda: sum(range(1000)), BenchSettings(block_s=0.5))
print(block.waited, block.cpu_contended)
"""


@pytest.mark.parametrize(
    ("ran", "waited", "share"), [(90, 10, 0.1), (20, 80, 0.8), (100, 0, 0.0), (0, 0, 0.0), (-5, 10, 0.0), (50, -1, 0.0)]
)
def test_the_share_is_of_the_time_that_threads_wanted_to_run(ran: int, waited: int, share: float) -> None:
    # Less than before: a thread ended, and took its numbers along.
    assert ProcessorTime(1000 + ran, 500 + waited).waited_since(ProcessorTime(1000, 500)) == share


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports it")
def test_the_threads_of_this_process_are_summed() -> None:
    first, second = ProcessorTime.now(), ProcessorTime.now()
    if first is None or second is None:
        pytest.skip("this kernel keeps no statistics of its scheduler")
    assert 0 < first.ran_ns <= second.ran_ns
    assert first.waited_ns <= second.waited_ns


def test_where_the_system_does_not_tell_it_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert ProcessorTime.now() is None


def test_a_kernel_without_these_statistics_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: "not supported")
    assert ProcessorTime.now() is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports it")
def test_a_block_that_shares_its_core_is_cpu_contended() -> None:
    if ProcessorTime.now() is None:
        pytest.skip("this kernel keeps no statistics of its scheduler")
    core = str(min(os.sched_getaffinity(0)))
    command = [sys.executable, "-c", ONE_CORE, core]
    with subprocess.Popen([*command, "other"], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            done = subprocess.run([*command, "me"], capture_output=True, text=True, check=True, timeout=60)
        finally:
            other.kill()
    waited, contended = done.stdout.split()
    assert float(waited) >= CPU_CONTENDED
    assert contended == "True"
