"""A client of one model on TorchServe. It needs the standard library only.

    python client.py --url http://127.0.0.1:8080 --key-file key_file.json

TorchServe writes key_file.json in the folder where it is started. Written by optkit; the class of the model stands at the end.
"""

import argparse
import contextlib
import http.client
import json
import math
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

_STALE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)  # the server closed an idle connection
_CHUNK_BYTES = 1 << 16


class ServerError(Exception):
    """The server cannot be reached, refuses the request, or answers something else than the model does."""


class InputError(ValueError):
    """A value is not what the model takes; nothing was sent."""


class SupportsToList(Protocol):
    """An array of any library."""

    def tolist(self) -> Any:
        """Return nested lists of numbers."""


Nested = float | Sequence["Nested"] | SupportsToList


@dataclass(frozen=True)
class Tensor:
    """The name, dtype and shape of one sample of an input; a str in the shape is a dimension that varies."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


class TorchServeModel:
    """A model on a server at `http://host:port`; a context manager, safe to use from several threads.

    `sizes` holds the sizes that each varying dimension may have. Every thread has a connection of its own.
    """

    name: ClassVar[str]
    inputs: ClassVar[tuple[Tensor, ...]]
    outputs: ClassVar[tuple[str, ...]]  # the keys of an answer; none where a handler of one's own decides
    sizes: ClassVar[Mapping[str, range]]
    sample: ClassVar[str]  # the file beside this one that a request may be tried with
    content_type: ClassVar[str] = "application/json"

    def __init__(self, url: str, version: str = "", token: str | None = None, limit_s: float = 30.0) -> None:
        """Remember where the model is; the first request connects.

        Args:
            url: `http://host:port` or `https://host:port`.
            version: of the model; without one the server's default.
            token: the inference key of key_file.json, where the server asks for one.
            limit_s: how long an answer may take.

        Raises:
            ValueError: the URL is of another form.
        """
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            raise ValueError(f"{url}: expected http://host:port, without a path")
        self.url = url.rstrip("/")
        self.version = version
        self.limit_s = limit_s
        self._token = token
        self._https = parts.scheme == "https"
        self._address = parts.netloc
        self._mine = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection of this thread."""
        connection = self._mine.__dict__.pop("connection", None)
        if connection is not None:
            connection.close()

    def body(self, feed: Mapping[str, Nested]) -> bytes:
        """Return the request of one sample of every input.

        Raises:
            InputError: a name, type, shape or size does not fit; says which, what was found and what was expected.
        """
        if set(feed) != {tensor.name for tensor in self.inputs}:
            takes = ", ".join(tensor.name for tensor in self.inputs)
            raise InputError(f"got inputs {', '.join(feed) or 'none'}; {self.name} takes {takes}")
        sizes: dict[str, int] = {}
        lists = {tensor.name: self._checked(feed[tensor.name], tensor, sizes) for tensor in self.inputs}
        return json.dumps(lists, allow_nan=False).encode()

    def _checked(self, value: Nested, tensor: Tensor, sizes: dict[str, int]) -> Any:
        lists = value.tolist() if hasattr(value, "tolist") else value
        where = f"input {tensor.name!r}"
        shape = _shape(lists, where, tensor)
        found = f"{where}: got shape [{','.join(map(str, shape))}]"
        if len(shape) != len(tensor.shape):
            raise InputError(f"{found}; expected one sample, {tensor}")
        for dim, size in zip(tensor.shape, shape, strict=True):
            allowed = self.sizes.get(dim, range(1, sys.maxsize)) if isinstance(dim, str) else range(dim, dim + 1)
            if size not in allowed:
                told = f" with {dim} from {allowed[0]} to {allowed[-1]}" if isinstance(dim, str) else ""
                raise InputError(f"{found}; expected one sample, {tensor}{told}")
            if isinstance(dim, str) and sizes.setdefault(dim, size) != size:
                raise InputError(f"{found}; expected {tensor} with the same {dim} in every input")
        wrong = next((number for number in _numbers(lists) if not _fits(number, tensor.dtype)), None)
        if wrong is not None:
            raise InputError(f"{where}: holds {wrong!r}, which is no {tensor.dtype}; expected {tensor}")
        return lists

    def ask(self, body: bytes, content_type: str) -> Any:
        """Send a request as it is, and return the answer's JSON.

        Raises:
            ServerError: there is no answer within the limit, a refusal, or one that is no JSON or has other keys.
        """
        status, content = self._answer(body, content_type)
        if status != 200:
            raise ServerError(f"{self._where}: refused with status {status}: {content[:500].decode(errors='replace')}")
        try:
            answer = json.loads(content)
        except ValueError as e:
            raise ServerError(f"{self._where}: answered {content[:200]!r}; expected JSON") from e
        if self.outputs and (not isinstance(answer, dict) or set(answer) != set(self.outputs)):
            got = ", ".join(map(str, answer)) if isinstance(answer, dict) else f"a {type(answer).__name__}"
            raise ServerError(f"{self._where}: answered {got}; expected {', '.join(self.outputs)}")
        return answer

    @property
    def _where(self) -> str:
        return f"{self.url}: {self.name}"

    def _answer(self, body: bytes, content_type: str) -> tuple[int, bytes]:
        path = f"/predictions/{urllib.parse.quote(self.name)}"
        path += f"/{urllib.parse.quote(self.version)}" if self.version else ""
        headers = {"Content-Type": content_type}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        end = time.monotonic() + self.limit_s
        with self._faults():
            reused = "connection" in self._mine.__dict__
            try:
                return self._exchange(path, body, headers, end)
            except _STALE:
                if not reused:
                    raise
                self.close()
            return self._exchange(path, body, headers, end)

    def _exchange(self, path: str, body: bytes, headers: Mapping[str, str], end: float) -> tuple[int, bytes]:
        if "connection" not in self._mine.__dict__:
            make = http.client.HTTPSConnection if self._https else http.client.HTTPConnection
            self._mine.connection = make(self._address, timeout=self.limit_s)
        connection: http.client.HTTPConnection = self._mine.connection
        connection.request("POST", path, body, dict(headers))
        response = connection.getresponse()
        content = b""
        while chunk := response.read1(_CHUNK_BYTES):
            content += chunk
            if time.monotonic() > end:
                raise TimeoutError("the answer came too slowly")
        response.read()  # so that the connection can be used again
        return response.status, content

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (OSError, http.client.HTTPException) as e:
            self.close()
            raise ServerError(f"{self._where}: no answer within {self.limit_s:g} s: {e or type(e).__name__}") from e
        except BaseException:
            self.close()  # half an answer may be left in it
            raise


def _shape(value: Any, where: str, tensor: Tensor) -> tuple[int, ...]:
    """Return the shape of nested lists, all of one length at each depth."""
    if not isinstance(value, list | tuple):
        return ()
    shapes = {_shape(part, where, tensor) for part in value}
    if len(shapes) > 1:
        raise InputError(f"{where}: the nested lists are of unequal lengths; expected one sample, {tensor}")
    return (len(value), *(shapes.pop() if shapes else ()))


def _numbers(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for part in value:
            yield from _numbers(part)
    else:
        yield value


def _fits(number: Any, dtype: str) -> bool:
    if dtype == "bool" or isinstance(number, bool):
        return isinstance(number, bool) and dtype == "bool"
    if dtype.startswith("float"):
        return isinstance(number, int | float) and math.isfinite(number)
    bits = int(dtype.lstrip("uint"))
    low, high = (0, 2**bits) if dtype.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    return isinstance(number, int) and low <= number < high


def read_key(path: Path) -> str:
    """Return the inference key of TorchServe's key_file.json.

    Raises:
        ValueError: it is no such file.
    """
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["inference"]["key"])
    except (KeyError, TypeError, ValueError) as e:
        raise ValueError(f"{path}: is no key file of TorchServe ({e!r})") from e


def printable(text: str) -> str:
    """Return a text with an escape for what cannot be printed: a server may answer with control sequences for a terminal."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def main(model: type[TorchServeModel], arguments: Sequence[str] | None = None) -> int:
    """Send one request and print the answer; return the exit code."""
    parser = argparse.ArgumentParser(description=f"Ask the model {model.name} on TorchServe.")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="http://host:port")
    parser.add_argument("--version", default="", help="of the model; the server's default without one")
    parser.add_argument(
        "--key-file", type=Path, help="the key_file.json that TorchServe has written, where it asks for a key"
    )
    parser.add_argument("--limit-s", type=float, default=30.0, help="how long the answer may take")
    parser.add_argument("--content-type", default=model.content_type, help="of the request")
    parser.add_argument(
        "request", nargs="?", type=Path, help="a file with the body of a request; a stored sample without one"
    )
    given = parser.parse_args(arguments)
    try:
        token = read_key(given.key_file) if given.key_file else None
        body = (given.request or Path(__file__).with_name(model.sample)).read_bytes()
        with model(given.url, given.version, token, given.limit_s) as client:
            answer = client.ask(body, given.content_type)
    except (ServerError, OSError, ValueError) as e:
        print(f"error: {printable(str(e))}", file=sys.stderr)
        return 2
    print(json.dumps(answer, indent=2))
    return 0


# Below: the model. Everything above is the same in every client.


class Digits(TorchServeModel):
    """The model `digits`.

    Takes one sample: image float32[1,8,8].
    Gives: logits.
    """

    name: ClassVar[str] = "digits"
    inputs: ClassVar[tuple[Tensor, ...]] = (Tensor("image", "float32", (1, 8, 8)),)
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    sizes: ClassVar[Mapping[str, range]] = {}
    sample: ClassVar[str] = "sample.json"

    def infer(self, image: Nested) -> Any:
        """Return the answer's JSON."""
        return self.ask(self.body({"image": image}), self.content_type)


if __name__ == "__main__":
    sys.exit(main(Digits))
