"""How a request reaches the server: a connection carries one request at a time, and the caller sets the time limit."""

import abc

REASON_LENGTH = 120


class RequestFailed(Exception):
    """A request failed. The text is the reason, without anything that differs from request to request.

    `refused` is True if a server of the expected kind refused the request in its own words.
    """

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class Connection(abc.ABC):
    """One connection, or one caller on a shared connection. Close it after a failure or a cancelled request."""

    @abc.abstractmethod
    async def request(self, content: bytes) -> bytes:
        """Send a request and return the body of the response.

        Raises:
            RequestFailed: the server refused the request, sent an unreadable response, or closed the connection.
        """

    @property
    @abc.abstractmethod
    def closed(self) -> bool:
        """Whether the connection cannot carry another request."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the connection, even during a request."""


class Connector(abc.ABC):
    """Opens connections to one server."""

    @abc.abstractmethod
    async def open(self) -> Connection:
        """Open a new connection.

        Raises:
            RequestFailed: the server cannot be reached.
        """

    async def close(self) -> None:  # noqa: B027 - most connectors hold nothing
        """Free the resources that the connections share."""


def short(text: str) -> str:
    """Return a reason as one short line."""
    line = " ".join(text.split())
    return line if len(line) <= REASON_LENGTH else f"{line[:REASON_LENGTH]}..."
