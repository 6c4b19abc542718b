"""Runs of optkit's command line with injected faults, forked from a process that has imported everything already.

A fault strikes at one file operation, counted over the whole run: what opens a file to write, writes to it, renames, deletes or creates below
the watched folders. `python -m tests.support.zygote` reads one JSON request a line, and answers with one line.
"""

import builtins
import contextlib
import errno
import importlib
import io
import json
import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support import ROOT

LIMIT_S = 120.0
_MODIFYING = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink", "os.chmod"}
_GROWING = {"open", "os.mkdir", "write", "os.link", "os.symlink"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_real_open = io.open


@dataclass(frozen=True)
class Fault:
    """What happens at which operation: `kill`, `full` and `read-only` from there on, `gone` (the folder), or only `count`."""

    kind: str = "count"
    at: int = 1 << 60
    below: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """One command in a process of its own."""

    arguments: list[str]
    folder: str
    environment: dict[str, str] = field(default_factory=dict)
    fault: Fault = Fault()


@dataclass(frozen=True)
class Answer:
    """The exit code (or the negative number of the signal), how many operations there were, and what was printed on stderr."""

    code: int
    operations: int
    err: str


class Zygote:
    """The parent's side: a context manager that starts the process."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.zygote"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: TracebackType | object) -> None:
        self._process.communicate()

    def run(self, *requests: Request) -> list[Answer]:
        """Run commands at once, and wait for all of them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([asdict(request) for request in requests]) + "\n")
        self._process.stdin.flush()
        return [Answer(**answer) for answer in json.loads(self._process.stdout.readline())]


class _Injector:
    """Counts the operations of this process, and strikes at one of them."""

    def __init__(self, fault: Fault, counter: mmap.mmap) -> None:
        self._fault = fault
        self._counter = counter
        self._roots = tuple(fault.below)
        self._on = True

    def install(self) -> None:
        sys.addaudithook(self._audit)
        builtins.open = io.open = self._open
        os.sendfile = self._sendfile

    def point(self, operation: str, path: object, torn: Callable[[], object] | None = None) -> None:
        """Count an operation below the watched folders; at the chosen one, strike. `torn` does a part of it before a kill."""
        if not self._on or not self._watched(path):
            return
        (number,) = struct.unpack_from("q", self._counter)
        struct.pack_into("q", self._counter, 0, number + 1)
        if number < self._fault.at:
            return
        match self._fault.kind:
            case "kill":
                self._on = False
                if torn:
                    torn()
                os.kill(os.getpid(), signal.SIGKILL)
            case "full" if operation in _GROWING:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
            case "read-only":
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))
            case "gone" if number == self._fault.at:
                self._on = False
                for root in self._roots:
                    shutil.rmtree(root, ignore_errors=True)
                self._on = True

    def _watched(self, path: object) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False
        text = os.fsdecode(path)
        return not text.startswith("/") or text.startswith(self._roots)  # a relative name is one in an open folder

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str) and path.startswith("/") and isinstance(flags, int) and flags & _WRITES:
                self.point("open", path)
        elif event in _MODIFYING:
            self.point(event, arguments[0])

    def _open(self, file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
        """Open a file; one that is written gets counted writes."""
        text = os.fspath(file) if isinstance(file, (str, os.PathLike)) else None
        simple = not rest and set(options) <= {"encoding", "newline", "errors"} and buffering == -1 and "+" not in mode
        if text is None or not simple or not set(mode) & set("wxa") or not self._watched(str(Path(text).absolute())):
            return _real_open(file, mode, buffering, *rest, **options)
        raw = _CountedFile(self, str(Path(text).absolute()), mode.replace("t", "").replace("b", ""))
        buffered = io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, **options)

    def _sendfile(self, out_fd: int, in_fd: int, offset: int | None, count: int) -> int:
        path = str(Path(f"/proc/self/fd/{out_fd}").readlink())
        real = sys.modules["posix"].sendfile
        size = max(os.fstat(in_fd).st_size - (offset or 0), 0)
        self.point("write", path, lambda: real(out_fd, in_fd, offset, size // 2))
        return int(real(out_fd, in_fd, offset, count))


class _CountedFile(io.FileIO):
    def __init__(self, injector: _Injector, path: str, mode: str) -> None:
        super().__init__(path, mode)
        self._injector = injector

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        write = super().write
        self._injector.point("write", self.name, lambda: write(view[: len(view) // 2]))
        return int(write(content))


def _child(request: dict[str, Any], counter: mmap.mmap, err: Path) -> int:
    from optkit.cli import main

    streams = os.open(err, os.O_WRONLY | os.O_CREAT, 0o600)
    for stream in (1, 2):
        os.dup2(streams, stream)
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    tempfile.tempdir = None
    fault = Fault(**request["fault"])
    _Injector(fault, counter).install()
    sys.argv = ["optkit", *request["arguments"]]
    try:
        main()
    except SystemExit as e:
        err.with_suffix(".modules").write_text("\n".join(sys.modules))
        return int(e.code or 0)


def _start(request: dict[str, Any], counter: mmap.mmap, err: Path) -> int:
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        code = _child(request, counter, err)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _wait(child: int) -> int:
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 71  # took too long


def _shorten() -> None:
    """As in the other tests, the choice among INT8 types takes a few short blocks; and the report's page, which is drawn for long, is empty."""
    from optkit.choose.int8 import gain, types
    from optkit.report import html
    from tests.conftest import _brief

    for module in (gain, types):
        module.measure = _brief(module.measure)  # type: ignore[attr-defined]
    html.page = lambda *_: "page"


def _import_as(child: Path) -> None:
    """Import what a child imported, so that the next ones need not. Its threads and sessions are not inherited."""
    if child.exists():
        for name in child.read_text().splitlines():
            if name not in sys.modules and name != "__main__":
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
        child.unlink()


def serve() -> None:
    """Answer requests until the input ends."""
    _shorten()
    answers = os.fdopen(os.dup(1), "w")
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            requests = json.loads(line)
            counters = [mmap.mmap(-1, 8) for _ in requests]
            files = [Path(folder, str(i)) for i in range(len(requests))]
            children = [_start(*each) for each in zip(requests, counters, files, strict=True)]
            found = [
                Answer(_wait(child), struct.unpack("q", counter[:8])[0], file.read_text(errors="replace"))
                for child, counter, file in zip(children, counters, files, strict=True)
            ]
            for file in files:
                _import_as(file.with_suffix(".modules"))
                with contextlib.suppress(FileNotFoundError):
                    file.unlink()
            answers.write(json.dumps([asdict(answer) for answer in found]) + "\n")
            answers.flush()


if __name__ == "__main__":
    serve()
