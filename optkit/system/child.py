"""A child process: its output, its time limit, and a reliable end of it and all its own children."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from optkit.errors import RunnerError
from optkit.system.supervisor import patience_s
from optkit.system.temporary import temporary_root

_STOP_LIMIT_S = 10.0
_POLL_S = 0.05


class ChildProcess:
    """A command that runs in its own process group until `stop`; Ctrl-C in a terminal does not reach it.

    What it prints is kept; with `pipes` this is stderr alone, and `pipes` has its stdin and stdout.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        pipes: bool = False,
    ) -> None:
        """Start the command.

        Args:
            command: the program and its arguments.
            environment: the complete environment; None means that of this process.
            folder: the working folder; None means the current one.
            pipes: whether this process talks with it.

        Raises:
            RunnerError: there is no such program, it cannot be executed, or there is no room for its output.
        """
        try:
            self._output = tempfile.TemporaryFile(dir=temporary_root())  # noqa: SIM115 - open until stop
        except OSError as e:
            raise RunnerError(
                f"{command[0]}: its output cannot be kept in the folder for temporary files ({e.strerror or e}). "
                f"Free some space, or set TMPDIR to another folder."
            ) from e
        try:
            self.process = subprocess.Popen(
                list(command),
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else self._output,
                stderr=self._output,
                encoding="utf-8" if pipes else None,
                start_new_session=True,  # a process group, which its children join
            )
        except OSError as e:
            self._output.close()
            raise RunnerError(f"{command[0]}: cannot be started ({e.strerror or e})") from e
        self.group = self.process.pid

    @property
    def code(self) -> int | None:
        """The exit code, or the negative number of the signal that ended it; None while the process runs."""
        return self.process.poll()

    @property
    def log(self) -> str:
        """The output so far; empty after `stop`."""
        if self._output.closed:
            return ""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    def last_lines(self, count: int = 1) -> str:
        """Return the last lines of the output that are not blank, in one line; empty if there are none."""
        return " | ".join([line.strip() for line in self.log.splitlines() if line.strip()][-count:])

    def wait(self, limit_s: float | None = None) -> int | None:
        """Wait until the process ends and return its exit code, or None if it did not end within the limit."""
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """Send SIGTERM to the process and its children, and SIGKILL to those that are left after 10 s, or less after Ctrl-C."""
        if self._output.closed:
            return
        limit_s = patience_s(_STOP_LIMIT_S) if isinstance(sys.exc_info()[1], KeyboardInterrupt) else _STOP_LIMIT_S
        for sent in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.group, sent)
            end = time.monotonic() + limit_s
            while self._any_left() and time.monotonic() < end:
                time.sleep(_POLL_S)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._output.close()

    def _any_left(self) -> bool:
        """Return whether a process of the group is alive. Children may outlive their parent."""
        self.process.poll()  # reaps the process; otherwise it still counts as alive
        try:
            os.killpg(self.group, 0)
        except ProcessLookupError:
            return False
        return True


def death(code: int) -> str:
    """Return how a process with this exit code ended: `ended with exit code 1`, `was killed by SIGKILL`."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
