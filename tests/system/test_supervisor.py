"""A command in a child process: its death is an error in plain words, and Ctrl-C ends it and its children within a second."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

_PROGRAM = """
import os, signal, subprocess, sys, time
from optkit.errors import StageError
from optkit.system.supervisor import ProcessDied, keep_results, step, supervised

def attempt(name, act, **options):
    try:
        with step(name, **options):
            act()
            print(name, "done", flush=True)
    except StageError as e:
        print(name, "failed:", e, flush=True)

def abort():
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\\n\\n")
    os.abort()

def work():
%s
    sys.exit(7)

try:
    supervised(work)
except ProcessDied as e:
    print("died:", e)
except KeyboardInterrupt:
    print("had to be killed")
    sys.exit(130)
"""


def run(body: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program(body)], capture_output=True, text=True, timeout=60, check=False
    )


def program(body: str) -> str:
    return _PROGRAM % "\n".join(f"    {line}" for line in body.splitlines())


def start(body: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", program(body)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def gone(pid: int) -> bool:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_the_exit_code_and_both_streams_are_those_of_the_work() -> None:
    done = run("print('out')\nprint('err', file=sys.stderr)\nos.write(2, b'from a library\\n')")
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert sorted(done.stderr.splitlines()) == ["err", "from a library"]


def test_a_step_that_ends_the_process_has_failed_and_the_others_go_on() -> None:
    done = run("attempt('one', lambda: None)\nattempt('two', abort)\nattempt('three', lambda: None)")
    assert done.returncode == 7
    assert done.stdout.splitlines() == [
        "one done",
        "one done",
        "two failed: a library ended the process (SIGABRT). This is a fault of the library: try another version of it. "
        "Its last line of output: terminate called after throwing an instance of 'std::bad_alloc'",
        "three done",
    ]
    assert done.stderr.count("bad_alloc") == 1


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            "the system killed the process (SIGKILL), usually because memory ran out.",
        ),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "a library ended the process (SIGSEGV)."),
        ("os.kill(os.getpid(), signal.SIGBUS)", "a library ended the process (SIGBUS)."),
    ],
)
def test_every_step_may_die_once(act: str, says: str) -> None:
    done = run(f"attempt('one', lambda: {act})\nattempt('two', lambda: {act})\nattempt('three', lambda: None)")
    one, two, three = done.stdout.splitlines()[-3:]
    assert one.startswith(f"one failed: {says}")
    assert two.startswith(f"two failed: {says}")
    assert three == "three done"
    assert done.returncode == 7


@pytest.mark.parametrize(
    ("body", "where"), [("abort()", ""), ("attempt('the model', abort, needed=True)", "the model: ")]
)
def test_what_the_rest_needs_ends_the_command(body: str, where: str) -> None:
    assert run(body).stdout.startswith(f"died: {where}a library ended the process (SIGABRT)")


_WITH_CHILD = "child = subprocess.Popen(['sleep', '60'], start_new_session=True)\nPath = __import__('pathlib').Path\n"


def waiting(folder: Path, then: str) -> str:
    return f"{_WITH_CHILD}Path({str(folder / 'pid')!r}).write_text(str(child.pid))\nprint('begun', flush=True)\n{then}"


DEAF = "signal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(60)"
POLITE = "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('cleaned up', flush=True)\n    sys.exit(130)"


@pytest.mark.parametrize(("then", "says"), [(DEAF, "had to be killed\n"), (POLITE, "cleaned up\n")])
def test_ctrl_c_ends_the_work_and_its_children_within_a_second(then: str, says: str, tmp_path: Path) -> None:
    process = start(waiting(tmp_path, then))
    time.sleep(0.2)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 1.0 + 1.0  # a second of a busy machine beside it
    assert (process.returncode, out) == (130, says), err
    assert gone(int((tmp_path / "pid").read_text()))


def test_what_keeps_results_is_given_more_time(tmp_path: Path) -> None:
    keeping = POLITE.replace("    print('cleaned up'", "    keep_results()\n    time.sleep(2)\n    print('cleaned up'")
    process = start(waiting(tmp_path, keeping))
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "cleaned up\n"), err


@pytest.mark.parametrize("send", [lambda p: p.kill()], ids=["SIGKILL"])
def test_when_the_parent_is_killed_the_work_ends(
    send: Callable[["subprocess.Popen[str]"], None], tmp_path: Path
) -> None:
    process = start(
        f"open({str(tmp_path / 'own')!r}, 'w').write(str(os.getpid()))\nprint('begun', flush=True)\ntime.sleep(60)"
    )
    own = int((tmp_path / "own").read_text())
    assert own != process.pid
    send(process)
    process.communicate(timeout=20)
    assert gone(own)


def test_what_nohup_ignores_is_ignored(tmp_path: Path) -> None:
    body = "print('begun', flush=True)\ntime.sleep(0.5)"
    process = subprocess.Popen(
        [sys.executable, "-c", program(body)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=20)
    assert process.returncode == 7


def test_a_parent_that_ignores_the_end_of_children_changes_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", program("print('out')")],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "")


def test_python_and_terminal_stay_together() -> None:
    controller, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program("os.write(1, str(sys.stderr.isatty()).encode())")],
        stdout=subprocess.PIPE,
        stderr=terminal,
    )
    assert process.communicate(timeout=20)[0] == b"True"
    os.close(terminal)
    os.close(controller)
