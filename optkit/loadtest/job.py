"""The data that every point of a sweep shares, and its event loop."""

import asyncio
import dataclasses
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from optkit.loadtest.connection import Connector
from optkit.loadtest.grpc_connection import GrpcConnector
from optkit.loadtest.http_connection import HttpConnector
from optkit.loadtest.settings import LoadSettings
from optkit.loadtest.target import Target
from optkit.loadtest.values import Values

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Job:
    """A target and the requests to it, both as bytes and as the input values."""

    target: Target
    settings: LoadSettings
    payloads: tuple[bytes, ...]
    values: Values | None = None
    server_batches: bool = False  # whether the first dimension is the batch dimension of the server


def connector_to(target: Target) -> Connector:
    """Return the connector to a target. Call it in the event loop that uses the connector."""
    return GrpcConnector(target.address) if target.scheme == "grpc" else HttpConnector(target.host, target.port)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in an event loop that waits with select(). With epoll, asyncio's default, it wakes up to 1 ms late.

    Raises:
        KeyboardInterrupt: Ctrl-C; the coroutine was cancelled and has cleaned up.
    """
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(work)
