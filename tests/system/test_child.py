"""A server process: what it says, and that nothing of it is left, its children included."""

import contextlib
import os
import socket
import sys
import time

import pytest

from optkit.errors import RunnerError
from optkit.serving.server.ports import free_ports
from optkit.system import child as child_process
from optkit.system.child import ChildProcess

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); print(1); time.sleep(99)"])
print("here", flush=True)
time.sleep(99)
"""


def started(code):
    process = ChildProcess([sys.executable, "-u", "-c", code], environment=dict(os.environ))
    end = time.monotonic() + 30
    while "here" not in process.log and time.monotonic() < end:
        time.sleep(0.02)
    return process


def gone(group):
    """Wait until the last one is reaped, which for a killed orphan is the work of the system's first process."""
    end = time.monotonic() + 30
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.killpg(group, 0)
            time.sleep(0.02)
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


def test_one_that_ends_when_it_is_asked():
    process = started("print('here'); import time; time.sleep(99)")
    assert (process.log, process.code) == ("here\n", None)
    process.stop()
    process.stop()  # again is nothing
    gone(process.group)
    assert process.log == ""


def test_one_that_does_not_want_to_end_is_killed_with_its_children(monkeypatch):
    monkeypatch.setattr(child_process, "_STOP_LIMIT_S", 0.2)
    process = started(STUBBORN)
    process.stop()
    gone(process.group)


def test_a_child_that_outlives_the_server_is_ended_too():
    child = (
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)']); print('here')"
    )
    process = started(child)
    assert process.wait() == 0
    process.stop()
    gone(process.group)


def test_what_cannot_be_started(tmp_path):
    with pytest.raises(RunnerError, match=f"{tmp_path}: cannot be started"):
        ChildProcess([str(tmp_path)], environment={})


def test_free_ports_differ_and_are_free():
    ports = free_ports(5)
    assert len(set(ports)) == 5
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()
