"""The process that compiles: its end is an error in words, whatever it is, and nothing of it stays."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from optkit.aoti import process
from optkit.aoti.host import find_compiler, this_host
from optkit.errors import StageError

START = "import json, os, signal, subprocess, sys, time\njob = json.load(open(sys.argv[1]))\n"


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Give worker(code): the code that runs in the place of the worker; `job` is its job."""

    def stand_in(code: str) -> None:
        (tmp_path / "worker.py").write_text(START + code)
        monkeypatch.setattr(process, "WORKER", tmp_path / "worker.py")

    return stand_in


def answer(text: str) -> str:
    return f"open(job['result'], 'w').write(json.dumps({text}))\n"


def test_the_answer_comes_back(worker, tmp_path: Path) -> None:
    worker(answer("{'result': {'seconds': job['n']}}"))
    assert process.run_job({"task": "compile", "n": 3}, tmp_path, "compiling") == {"seconds": 3}


def test_a_fault_is_said(worker, tmp_path: Path) -> None:
    worker(answer("{'fault': 'CppCompileError: x.cpp:3: error: no such thing'}"))
    with pytest.raises(StageError, match=r"^compiling: CppCompileError: x\.cpp:3: error: no such thing$"):
        process.run_job({"task": "compile"}, tmp_path, "compiling")


DEATHS = {
    "SIGKILL": (r"was killed by SIGKILL; nothing was written\. Usually the system killed it because memory ran out"),
    "SIGILL": (
        r"was killed by SIGILL; nothing was written\. The code uses instructions that this processor does not have"
    ),
    "SIGSEGV": (r"was killed by SIGSEGV; nothing was written\. Run it again with -vv"),
}


@pytest.mark.parametrize("name", DEATHS)
def test_a_crash_is_said(name: str, worker, tmp_path: Path) -> None:
    worker(f"print('last words', flush=True)\nos.kill(os.getpid(), signal.{name})")
    with pytest.raises(
        StageError, match=rf"^compiling: its process {DEATHS[name]}.* Its last line of output: last words$"
    ):
        process.run_job({"task": "compile"}, tmp_path, "compiling")


def test_an_exit_without_an_answer_is_said(worker, tmp_path: Path) -> None:
    worker("sys.exit(4)")
    with pytest.raises(StageError, match=r"ended with exit code 4 and no answer"):
        process.run_job({"task": "compile"}, tmp_path, "compiling")


SLOW = """
child = subprocess.Popen(["sleep", "300"])
open(job["pids"], "w").write(f"{os.getpid()} {child.pid}")
time.sleep(300)
"""


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody waits for is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def all_gone(pids: Path) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if all(gone(int(pid)) for pid in pids.read_text().split()):
            return True
        time.sleep(0.05)
    return False


def test_the_time_limit_ends_it_and_the_compiler(worker, tmp_path: Path) -> None:
    worker(SLOW)
    pids = tmp_path / "pids"
    with pytest.raises(
        StageError,
        match=r"^compiling: was not done in 5 s, the time limit; nothing was written\. Give a larger --time-limit-s$",
    ):
        process.run_job({"task": "compile", "pids": str(pids)}, tmp_path, "compiling", time_limit_s=5)
    assert all_gone(pids)


def test_ctrl_c_ends_it_and_the_compiler(worker, tmp_path: Path) -> None:
    worker(SLOW)
    pids = tmp_path / "pids"

    def interrupt() -> None:
        while not pids.is_file() or " " not in pids.read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        process.run_job({"task": "compile", "pids": str(pids)}, tmp_path, "compiling")
    assert all_gone(pids)


def test_a_fresh_process_has_no_compiler_and_an_empty_cache(
    worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "g++")
    worker(
        "import shutil\n"
        + answer(
            "{'result': {'found': [n for n in ('g++', 'gcc', 'cc', 'ptxas') if shutil.which(n)], 'cxx': os.environ.get('CXX'), "
            "'cache': os.listdir(os.environ['TORCHINDUCTOR_CACHE_DIR'])}}"
        )
    )
    found = process.run_job({"task": "check"}, tmp_path, "the package", alone=True)
    assert found == {"found": [], "cxx": None, "cache": []}


def test_a_missing_compiler_is_said_with_the_line_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StageError, match=r"g\+\+, the C\+\+ compiler, is not on the PATH.*Run: apt-get install g\+\+"):
        find_compiler()


def test_a_compiler_that_does_not_start_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "g++").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "g++").chmod(0o755)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StageError, match=rf"^{tmp_path}/g\+\+: does not start .*; expected a C\+\+ compiler"):
        find_compiler()


def test_this_host_is_described() -> None:
    host = this_host(gpu=False)
    assert host.torch
    assert host.machine
    assert host.target is None
