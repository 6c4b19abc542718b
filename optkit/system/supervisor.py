"""A command in a child process, so that its end is reported in plain words when a library aborts or the system kills it.

The parent imports nothing heavy. It ends the child and all its children when Ctrl-C or SIGTERM did not within a second. When the child dies
in a step of a recipe, the command is carried out again without this step, and what was finished before is reused.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from mmap import mmap
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

from optkit.errors import OptkitError, StageError

_PATIENCE_S = 0.8  # after Ctrl-C, for what the child has to clean up
_KEEPING_S = 10.0  # where it writes results
_CHILDREN_S = 0.4  # of it, for its children
_POLL_S = 0.1
_BOARD_BYTES = 4096
_TAIL_BYTES = 4096
_NEEDED = "!"
_KEEPS = 1  # in the last byte of the board
_DEATH_SIGNAL, _SUBREAPER = 1, 36  # of prctl(2)
_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} if hasattr(signal, "SIGHUP") else set()

_died: ContextVar[Mapping[str, str]] = ContextVar("steps_that_ended_the_process", default=MappingProxyType({}))
_board: ContextVar[mmap | None] = ContextVar("board", default=None)


class ProcessDied(OptkitError):
    """The process of a command ended without an exit code; the message says how, and in which step."""


@contextlib.contextmanager
def step(name: str, *, needed: bool = False) -> Iterator[None]:
    """Mark a step of the command, which its supervisor reports if the process dies in it; without a `needed` one nothing can go on.

    Raises:
        StageError: an earlier process of this command died in it.
    """
    if name in _died.get():
        raise StageError(_died.get()[name])
    board = _board.get()
    before = _read(board)
    _write(board, f"{_NEEDED}{name}" if needed else name)
    try:
        yield
    finally:
        _write(board, before)


def patience_s(usual_s: float) -> float:
    """Return how long to wait for children after Ctrl-C: less than usual where a supervisor ends this process too."""
    return usual_s if _board.get() is None else min(usual_s, _CHILDREN_S)


def keep_results() -> None:
    """Tell the supervisor after Ctrl-C that this process still writes what it has measured, so that it is given ten seconds."""
    board = _board.get()
    if board is not None:
        board[_BOARD_BYTES - 1] = _KEEPS


def exit_at_once(code: int) -> NoReturn:
    """Exit after Ctrl-C; a supervised process does without the end of the interpreter, which with torch loaded takes its time."""
    if _board.get() is None:
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def supervised(work: Callable[[], NoReturn]) -> NoReturn:
    """Run `work`, which exits, in a child process, and exit as it did. Where this is not possible, run it in this process.

    Raises:
        ProcessDied: the child died outside a step, or in one that is needed.
        KeyboardInterrupt: Ctrl-C, and the child did not end by itself.
    """
    if not hasattr(signal, "sigtimedwait") or sys.platform != "linux":
        work()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # the caller may ignore it, and then no exit code can be read
    _prctl(_SUBREAPER, 1)
    died: dict[str, str] = {}
    while True:
        board = mmap(-1, _BOARD_BYTES)
        child = _Child(board, died)
        if child.is_this:
            work()
        code = child.wait()
        if code >= 0:
            sys.exit(code)
        where, reason = _read(board), _reason(-code, child.last_line)
        if not where or where.startswith(_NEEDED) or where in died:
            raise ProcessDied(f"{where.removeprefix(_NEEDED)}: {reason}" if where else reason)
        died[where] = reason


class _Child:
    """A forked process whose file descriptor of stderr leads through the parent; what Python itself prints goes to the terminal."""

    def __init__(self, board: mmap, died: Mapping[str, str]) -> None:
        parent = os.getpid()
        self._board = board
        self._output, their_output = os.pipe()
        self._tail = b""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*_ENDING, signal.SIGCHLD})
        self._pid = os.fork()
        self.is_this = not self._pid
        if self.is_this:
            _prctl(_DEATH_SIGNAL, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            os.close(self._output)
            _lead_stderr(their_output)
            _board.set(board)
            _died.set(died)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            return
        os.close(their_output)
        os.set_blocking(self._output, False)

    @property
    def last_line(self) -> str:
        """The last line that a library printed."""
        lines = [line.strip() for line in self._tail.decode(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "")

    def wait(self) -> int:
        """Return the exit code of the child, or the negative number of the signal that ended it.

        Raises:
            KeyboardInterrupt: Ctrl-C, and the child had to be killed.
        """
        deadline: float | None = None
        while True:
            sent = signal.sigtimedwait({*_ENDING, signal.SIGCHLD}, _POLL_S)
            self._relay()
            if sent is not None and sent.si_signo in _ENDING and not _ignored(sent.si_signo) and deadline is None:
                deadline = time.monotonic() + _PATIENCE_S
                if sent.si_code <= 0:  # sent to this process alone; a terminal sends it to the child too
                    os.kill(self._pid, sent.si_signo)
            more_s = _KEEPING_S if self._board[_BOARD_BYTES - 1] == _KEEPS else 0.0
            if deadline is not None and time.monotonic() > deadline + more_s:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGKILL)
            found, status = os.waitpid(self._pid, os.WNOHANG)
            if found:
                break
        code = os.waitstatus_to_exitcode(status)
        if code < 0 or deadline is not None:
            _kill_orphans()
        self._relay()
        os.close(self._output)
        if deadline is not None and code < 0:
            raise KeyboardInterrupt
        return code

    def _relay(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while content := os.read(self._output, 1 << 16):
                self._tail = (self._tail + content)[-_TAIL_BYTES:]
                with contextlib.suppress(OSError):
                    os.write(2, content)


def _lead_stderr(output: int) -> None:
    """Lead the descriptor that libraries write to into a pipe, and Python's own stream past it, so that a terminal stays one."""
    terminal = os.dup(2)
    os.dup2(output, 2)
    os.close(output)
    old = sys.stderr
    sys.stderr = os.fdopen(terminal, "w", buffering=1, encoding=old.encoding, errors=old.errors)


def _reason(number: int, last_line: str) -> str:
    name = signal.Signals(number).name
    last = f" Its last line of output: {last_line}" if last_line else ""
    if number == signal.SIGKILL:
        return f"the system killed the process ({name}), usually because memory ran out. Free memory, or use smaller batches.{last}"
    return f"a library ended the process ({name}). This is a fault of the library: try another version of it.{last}"


def _ignored(number: int) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN  # by `nohup`


def _kill_orphans() -> None:
    """Kill the processes that the child left; as their subreaper, this process has become their parent."""
    for _ in range(50):
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        left = _children()
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _children() -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:
        return []


def _prctl(option: int, value: int) -> None:
    import ctypes

    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _read(board: mmap | None) -> str:
    return board[: _BOARD_BYTES - 1].rstrip(b"\0").decode(errors="replace") if board is not None else ""


def _write(board: mmap | None, text: str) -> None:
    if board is not None:
        board[: _BOARD_BYTES - 1] = text.encode(errors="replace")[: _BOARD_BYTES - 1].ljust(_BOARD_BYTES - 1, b"\0")
