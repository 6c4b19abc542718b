"""Free loopback ports for a server on this machine."""

import contextlib
import socket
from collections.abc import Iterator

HOST = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Return different free ports."""
    with contextlib.ExitStack() as held:
        return list(_bound(held, count))


def _bound(held: contextlib.ExitStack, count: int) -> Iterator[int]:
    for _ in range(count):
        listener = held.enter_context(socket.socket())
        listener.bind((HOST, 0))
        yield int(listener.getsockname()[1])
