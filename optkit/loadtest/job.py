"""What every point of a sweep shares, and the event loop that it runs in."""

import asyncio
import dataclasses
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from optkit.loadtest.connection import Lines
from optkit.loadtest.grpc_connection import GrpcLines
from optkit.loadtest.http_connection import HttpLines
from optkit.loadtest.settings import LoadSettings
from optkit.loadtest.target import Target
from optkit.loadtest.values import Values

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Job:
    """A target with the requests for it: as bytes, and as the values that they were made of."""

    target: Target
    settings: LoadSettings
    payloads: tuple[bytes, ...]
    values: Values | None = None
    server_batches: bool = False  # whether the first dimension is the server's batch


def lines_to(target: Target) -> Lines:
    """Return how requests reach a target; to be called in the event loop that uses it."""
    return GrpcLines(target.address) if target.scheme == "grpc" else HttpLines(target.host, target.port)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run in an event loop that waits with select(): epoll, which asyncio takes by itself, is up to 1 ms late.

    Raises:
        KeyboardInterrupt: Ctrl-C; the work was cancelled and has cleaned up.
    """
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(work)
