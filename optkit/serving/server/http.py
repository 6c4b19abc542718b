"""One HTTP request to a server with a time limit for the whole exchange."""

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from optkit.errors import RecipeError, RunnerError
from optkit.untrusted.documents import parse_response

_MAX_BYTES = 1 << 30  # of a response


@dataclass(frozen=True)
class HttpResponse:
    """The status, and the body as text."""

    status: int
    text: str

    def json(self) -> Any:
        """Return the body as JSON.

        Raises:
            RunnerError: the body is not JSON.
        """
        try:
            return parse_response(self.text)
        except ValueError as e:
            raise RunnerError(f"got status {self.status} and {self.text[:200]!r}; expected JSON") from e


def check_url(url: str) -> None:
    """Check that a URL has the form http://host:port.

    Raises:
        RecipeError: it has another form.
    """
    parts = urlsplit(url)
    with contextlib.suppress(ValueError):  # the port is not a number
        if parts.scheme in ("http", "https") and parts.hostname and parts.path in ("", "/") and parts.port != 0:
            return
    raise RecipeError(f"--url {url}: expected http://host:port, without a path")


def ask(
    method: str, url: str, limit_s: float, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> HttpResponse:
    """Send one request and return the response, whatever its status. Proxy settings of the environment are ignored.

    Raises:
        RunnerError: there is no complete HTTP response within the limit.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=limit_s)
    over = threading.Event()
    try:
        connection.connect()
        with _cut_after(limit_s, connection.sock, over):
            path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
            connection.request(method, path, body, dict(headers or {}))
            with contextlib.closing(connection.getresponse()) as response:  # it holds the socket, too
                content = response.read(_MAX_BYTES + 1)
        if over.is_set():
            raise TimeoutError("the response was incomplete")
    except (
        OSError,
        ValueError,
        http.client.HTTPException,
    ) as e:  # ValueError: http.client raises it for some header lines
        raise RunnerError(f"{url}: no response within {limit_s:g} s ({e or type(e).__name__})") from e
    finally:
        connection.close()
    if len(content) > _MAX_BYTES:
        raise RunnerError(f"{url}: the response is longer than {_MAX_BYTES} bytes")
    return HttpResponse(response.status, content.decode(errors="replace"))


@contextlib.contextmanager
def _cut_after(limit_s: float, connected: socket.socket, over: threading.Event) -> Iterator[None]:
    """Close a connection when the limit is over. The timeout of a socket is not enough: it restarts with each received byte."""

    def cut() -> None:
        over.set()
        with contextlib.suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(limit_s, cut)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
