"""A client of one model on TorchServe. It needs the standard library only.

    python client.py --url http://127.0.0.1:8080 --key-file key_file.json

TorchServe writes key_file.json to its working folder. Written by optkit. The class of the model is at the end of the file.
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
    """The server cannot be reached, refuses the request, or sends an unexpected answer."""


class InputError(ValueError):
    """A value does not fit the model's input. No request was sent."""


class SupportsToList(Protocol):
    """An array of any library."""

    def tolist(self) -> Any:
        """Return nested lists of numbers."""


Nested = float | Sequence["Nested"] | SupportsToList


@dataclass(frozen=True)
class Tensor:
    """The name, dtype and shape of one sample of an input. A str in the shape is a dynamic dimension."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


class TorchServeModel:
    """A model on a server at `http://host:port`. It is a context manager and thread-safe: every thread has its own connection.

    `sizes` holds the allowed sizes of each dynamic dimension.
    """

    name: ClassVar[str]
    inputs: ClassVar[tuple[Tensor, ...]]
    outputs: ClassVar[tuple[str, ...]]  # the keys of an answer; empty for the user's own handler
    sizes: ClassVar[Mapping[str, range]]
    sample: ClassVar[str]  # a file beside this one with the body of a sample request
    content_type: ClassVar[str] = "application/json"

    def __init__(self, url: str, version: str = "", token: str | None = None, limit_s: float = 30.0) -> None:
        """Store the address of the model. The first request connects.

        Args:
            url: `http://host:port` or `https://host:port`.
            version: the version of the model; empty means the server's default.
            token: the inference key from key_file.json, if the server requires one.
            limit_s: time limit for an answer.

        Raises:
            ValueError: the URL has another form.
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
        """Return the request body for one sample of every input.

        Raises:
            InputError: a name, type, shape or size does not fit the model.
        """
        if set(feed) != {tensor.name for tensor in self.inputs}:
            takes = ", ".join(tensor.name for tensor in self.inputs)
            raise InputError(f"got inputs {', '.join(feed) or 'none'}; {self.name} expects {takes}")
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
                limits = f" with {dim} from {allowed[0]} to {allowed[-1]}" if isinstance(dim, str) else ""
                raise InputError(f"{found}; expected one sample, {tensor}{limits}")
            if isinstance(dim, str) and sizes.setdefault(dim, size) != size:
                raise InputError(f"{found}; expected {tensor} with the same {dim} in every input")
        wrong = next((number for number in _numbers(lists) if not _fits(number, tensor.dtype)), None)
        if wrong is not None:
            raise InputError(f"{where}: contains {wrong!r}, which is not {tensor.dtype}; expected {tensor}")
        return lists

    def ask(self, body: bytes, content_type: str) -> Any:
        """Send a request body and return the JSON of the answer.

        Raises:
            ServerError: there is no answer within the limit, its status is not 200, it is not JSON, or its keys are unexpected.
        """
        status, content = self._answer(body, content_type)
        if status != 200:
            raise ServerError(f"{self._where}: refused with status {status}: {content[:500].decode(errors='replace')}")
        try:
            answer = json.loads(content)
        except ValueError as e:
            raise ServerError(f"{self._where}: the answer is {content[:200]!r}; expected JSON") from e
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
                raise TimeoutError("the answer was incomplete")
        response.read()  # makes the connection reusable
        return response.status, content

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (OSError, http.client.HTTPException) as e:
            self.close()
            raise ServerError(f"{self._where}: no answer within {self.limit_s:g} s: {e or type(e).__name__}") from e
        except BaseException:
            self.close()  # it may hold a part of an answer
            raise


def _shape(value: Any, where: str, tensor: Tensor) -> tuple[int, ...]:
    """Return the shape of nested lists, which must have equal lengths at each depth."""
    if not isinstance(value, list | tuple):
        return ()
    shapes = {_shape(part, where, tensor) for part in value}
    if len(shapes) > 1:
        raise InputError(f"{where}: the nested lists have unequal lengths; expected one sample, {tensor}")
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
    """Return the inference key from TorchServe's key_file.json.

    Raises:
        ValueError: the file is not a key file.
    """
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["inference"]["key"])
    except (KeyError, TypeError, ValueError) as e:
        raise ValueError(f"{path}: is not a TorchServe key file ({e!r})") from e


def printable(text: str) -> str:
    """Return a text with an escape for what cannot be printed: a server may answer with control sequences for a terminal."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def main(model: type[TorchServeModel], arguments: Sequence[str] | None = None) -> int:
    """Send one request and print the answer; return the exit code."""
    parser = argparse.ArgumentParser(description=f"Send a request to the model {model.name} on TorchServe.")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="http://host:port")
    parser.add_argument("--version", default="", help="version of the model; default: chosen by the server")
    parser.add_argument(
        "--key-file", type=Path, help="the key_file.json that TorchServe wrote, if the server requires a key"
    )
    parser.add_argument("--limit-s", type=float, default=30.0, help="time limit for the answer")
    parser.add_argument("--content-type", default=model.content_type, help="content type of the request")
    parser.add_argument(
        "request", nargs="?", type=Path, help="a file with the body of a request; default: a stored sample"
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
