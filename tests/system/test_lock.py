"""Locks: one writer at a time; the second says who the first is; a dead process locks nothing."""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from optkit.errors import OutputError
from optkit.system.lock import LOCK_FILE, locked_file, locked_folder

_HOLD = """
import sys, time
from pathlib import Path
from optkit.system import lock
with getattr(lock, sys.argv[1])(Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.readline()
"""
KINDS = [("locked_folder", LOCK_FILE), ("locked_file", ".out.lock")]


def hold(kind: str, path: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, kind, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def take(kind: str) -> Callable[[Path], AbstractContextManager[None]]:
    return {"locked_folder": locked_folder, "locked_file": locked_file}[kind]


@pytest.mark.parametrize(("kind", "_file"), KINDS)
def test_the_second_waits_and_says_for_whom(
    kind: str, _file: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process = hold(kind, tmp_path / "out")
    timer = threading.Timer(0.5, lambda: process.communicate("\n"))
    timer.start()
    with caplog.at_level(logging.WARNING), take(kind)(tmp_path / "out"):
        assert process.poll() == 0 or process.wait(10) == 0
    timer.join()
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path}/out: process {process.pid} on {os.uname().nodename}, since 20")
    assert line.endswith(", writes to it; waiting until it ends")


@pytest.mark.parametrize(("kind", "_file"), KINDS)
def test_with_a_limit_the_second_says_who_writes(
    kind: str, _file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTKIT_WAIT_S", "0.2")
    process = hold(kind, tmp_path / "out")
    with (
        pytest.raises(
            OutputError, match=f"out: process {process.pid} on .* writes to it; expected no other writer within 0.2 s"
        ),
        take(kind)(tmp_path / "out"),
    ):
        pass
    process.communicate("\n")


@pytest.mark.parametrize(("kind", "file"), KINDS)
def test_a_dead_process_locks_nothing_and_nothing_is_left(
    kind: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTKIT_WAIT_S", "0")
    process = hold(kind, tmp_path / "out")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = tmp_path / "out" / file if kind == "locked_folder" else tmp_path / file
    assert left.exists()
    with take(kind)(tmp_path / "out"):
        assert f"process {os.getpid()} on " in left.read_text()
    assert not left.exists()


def test_a_child_that_inherited_a_lock_does_not_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTKIT_WAIT_S", "0")
    with locked_folder(tmp_path):
        child = os.fork()
        if not child:
            signal.pause()
    try:
        with locked_folder(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_threads_wait_for_each_other_too(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with locked_folder(tmp_path / "out"):
                inside += 1
                most = max(most, inside)
                (tmp_path / "out" / "file").write_text("x")
                (tmp_path / "out" / "file").unlink()
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert list((tmp_path / "out").glob("*")) == []


def test_a_folder_that_was_created_for_nothing_is_removed(tmp_path: Path) -> None:
    with locked_folder(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / LOCK_FILE).exists()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with locked_folder(tmp_path / "mine" / "b"):
        (tmp_path / "mine" / "b" / "file").write_text("x")
    assert (tmp_path / "mine" / "b" / "file").exists()


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(OutputError, match="file: is a file; expected a folder to write to"),
        locked_folder(tmp_path / "file"),
    ):
        pass
    with (
        pytest.raises(OutputError, match=r"file/sub: cannot be written .Not a directory"),
        locked_folder(tmp_path / "file" / "sub"),
    ):
        pass
    with (
        pytest.raises(OutputError, match=r"file/m: cannot be written .*(exists|Not a directory)"),
        locked_file(tmp_path / "file" / "m"),
    ):
        pass


def test_a_limit_that_is_no_number_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTKIT_WAIT_S", "soon")
    with pytest.raises(OutputError, match="OPTKIT_WAIT_S=soon: expected a number of seconds"), locked_folder(tmp_path):
        pass
