"""How a request travels: a line carries one at a time, and whoever waits for its answer sets the limit."""

import abc

REASON_LENGTH = 120


class RequestFailed(Exception):
    """A request got no good answer; the text is the reason, without what differs from request to request.

    `refused` is whether a server of the right kind said so, in words of its own.
    """

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class Line(abc.ABC):
    """One connection, or one caller on a shared one. After a failure or a cancelled wait it must be closed."""

    @abc.abstractmethod
    async def ask(self, request: bytes) -> bytes:
        """Send a request and return the answer's body.

        Raises:
            RequestFailed: the server refused it, answered garbage, or hung up.
        """

    @property
    @abc.abstractmethod
    def closed(self) -> bool:
        """Whether it can carry no further request."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give it up, whatever it is doing."""


class Lines(abc.ABC):
    """Where lines to one server come from."""

    @abc.abstractmethod
    async def open(self) -> Line:
        """Return a new line.

        Raises:
            RequestFailed: the server cannot be reached.
        """

    async def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Free what the lines share."""


def short(text: str) -> str:
    """Return a reason of one short line."""
    line = " ".join(text.split())
    return line if len(line) <= REASON_LENGTH else f"{line[:REASON_LENGTH]}..."
