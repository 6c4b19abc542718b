"""A server process on this machine: on free loopback ports, its words kept, and ended for certain with all that it has started."""

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
    """A command that runs in a process group of its own, until `stop`."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str], folder: Path | None = None) -> None:
        """Start it.

        Args:
            command: the program and its arguments.
            environment: all of it.
            folder: where it starts; None takes this process's own.

        Raises:
            RunnerError: there is no such program, or it may not be run.
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
        """With what it has ended by itself; None while it runs."""
        return self._process.poll()

    @property
    def log(self) -> str:
        """What it has said so far; nothing once it was stopped."""
        if self._log.closed:
            return ""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def wait(self) -> int:
        """Wait until it ends by itself and return with what."""
        return self._process.wait()

    def stop(self) -> None:
        """Ask it and its children to end, and kill what is left of them after a while."""
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
        """Say whether a process of the group is alive: children may outlive what started them."""
        self._process.poll()  # reaps it; what is not reaped counts as there
        try:
            os.killpg(self.group, 0)
        except ProcessLookupError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on; held all together, so that they differ."""
    with contextlib.ExitStack() as held:
        return list(_bound(held, count))


def _bound(held: contextlib.ExitStack, count: int) -> Iterator[int]:
    for _ in range(count):
        listener = held.enter_context(socket.socket())
        listener.bind((HOST, 0))
        yield int(listener.getsockname()[1])
