"""A server process on this machine: free loopback ports, a log, and a reliable end of the server and all its child processes."""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from optkit.errors import RunnerError

HOST = "127.0.0.1"
_STOP_LIMIT_S = 10.0
_POLL_S = 0.05


class ServerProcess:
    """A command that runs in its own process group until `stop`."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str], folder: Path | None = None) -> None:
        """Start the command.

        Args:
            command: the program and its arguments.
            environment: the complete environment.
            folder: the working folder; None means the current one.

        Raises:
            RunnerError: there is no such program, or it cannot be executed.
        """
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open until stop
        try:
            self._process = subprocess.Popen(
                list(command),
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a process group, which the children of the server join
            )
        except OSError as e:
            self._log.close()
            raise RunnerError(f"{command[0]}: cannot be started ({e.strerror or e})") from e
        self.group = self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code, or None while the process runs."""
        return self._process.poll()

    @property
    def log(self) -> str:
        """The output so far; empty after `stop`."""
        if self._log.closed:
            return ""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def wait(self) -> int:
        """Wait until the process ends and return its exit code."""
        return self._process.wait()

    def stop(self) -> None:
        """Send SIGTERM to the process and its children, and SIGKILL to those that are left after 10 s."""
        if self._log.closed:
            return
        for sent in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.group, sent)
            end = time.monotonic() + _STOP_LIMIT_S
            while self._any_left() and time.monotonic() < end:
                time.sleep(_POLL_S)
        self._log.close()

    def _any_left(self) -> bool:
        """Return whether a process of the group is alive. Children may outlive their parent."""
        self._process.poll()  # reaps the process; otherwise it still counts as alive
        try:
            os.killpg(self.group, 0)
        except ProcessLookupError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Return different free ports."""
    with contextlib.ExitStack() as held:
        return list(_bound(held, count))


def _bound(held: contextlib.ExitStack, count: int) -> Iterator[int]:
    for _ in range(count):
        listener = held.enter_context(socket.socket())
        listener.bind((HOST, 0))
        yield int(listener.getsockname()[1])
