"""A client of one model on a Triton server, over HTTP or gRPC. It needs only numpy and `tritonclient[http,grpc]`.

    python client.py --url http://127.0.0.1:8000
    python client.py --url grpc://127.0.0.1:8001 --version 2 inputs.npz

Written by optkit. The class of the model is at the end of the file.
"""

import argparse
import contextlib
import importlib
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

SAMPLE = Path(__file__).with_name("sample.npz")


class ServerError(Exception):
    """The server cannot be reached, refuses the request, or sends an unexpected answer."""


class InputError(ValueError):
    """An array does not fit the model's input. No request was sent."""


@dataclass(frozen=True)
class Tensor:
    """The name, dtype and shape of an input or output. A str in the shape is a dynamic dimension."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


class TritonModel:
    """A model on a server at `http://host:port` or `grpc://host:port`. It is a context manager and thread-safe.

    Every thread has its own connection. `sizes` holds the allowed sizes of each dynamic dimension.
    """

    name: ClassVar[str]
    inputs: ClassVar[tuple[Tensor, ...]]
    outputs: ClassVar[tuple[Tensor, ...]]
    sizes: ClassVar[Mapping[str, range]]

    def __init__(self, url: str, version: str = "", limit_s: float = 30.0) -> None:
        """Store the address of the model. The first request connects.

        Args:
            url: `http://host:port` or `grpc://host:port`.
            version: the version of the model; empty means that the server's version policy decides.
            limit_s: time limit for an answer.

        Raises:
            ValueError: the URL has another form.
        """
        scheme, _, address = url.partition("://")
        if scheme not in ("http", "grpc") or not address or "/" in address:
            raise ValueError(f"{url}: expected http://host:port or grpc://host:port, without a path")
        self.url = url
        self.version = version
        self.limit_s = limit_s
        self._scheme = scheme
        self._address = address
        self._library: Any = importlib.import_module(f"tritonclient.{scheme}")
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

    def example(self) -> dict[str, np.ndarray]:
        """Return the sample that is stored with this client or, if there is none, zeros of the smallest sizes."""
        if SAMPLE.is_file():
            with np.load(SAMPLE, allow_pickle=False) as stored:
                return {tensor.name: stored[tensor.name] for tensor in self.inputs}
        smallest = {dim: sizes[0] for dim, sizes in self.sizes.items()}
        shapes = {t.name: [smallest.get(d, 1) if isinstance(d, str) else d for d in t.shape] for t in self.inputs}
        return {tensor.name: np.zeros(shapes[tensor.name], tensor.dtype) for tensor in self.inputs}

    def check(self, feed: Mapping[str, np.ndarray]) -> None:
        """Check that arrays fit the model's inputs.

        Raises:
            InputError: a name, dtype, shape or size does not fit.
        """
        if set(feed) != {tensor.name for tensor in self.inputs}:
            takes = ", ".join(tensor.name for tensor in self.inputs)
            raise InputError(f"got inputs {', '.join(feed) or 'none'}; {self.name} expects {takes}")
        sizes: dict[str, int] = {}
        for tensor in self.inputs:
            array = feed[tensor.name]
            if not isinstance(array, np.ndarray):
                raise InputError(
                    f"input {tensor.name!r}: got a {type(array).__name__}; expected a numpy array {tensor}"
                )
            found = f"input {tensor.name!r}: got {array.dtype}[{','.join(map(str, array.shape))}]"
            if array.dtype != tensor.dtype:
                raise InputError(f"{found}; expected {tensor}. Convert it with .astype({tensor.dtype!r}).")
            if array.ndim != len(tensor.shape):
                raise InputError(f"{found}; expected {tensor}")
            for dim, size in zip(tensor.shape, array.shape, strict=True):
                self._check_size(found, tensor, dim, size, sizes)

    def _check_size(self, found: str, tensor: Tensor, dim: int | str, size: int, sizes: dict[str, int]) -> None:
        if isinstance(dim, int):
            if size != dim:
                raise InputError(f"{found}; expected {tensor}")
            return
        allowed = self.sizes.get(dim)
        if allowed is not None and size not in allowed:
            step = f", multiples of {allowed.step}" if allowed.step > 1 else ""
            raise InputError(f"{found}; expected {tensor} with {dim} from {allowed[0]} to {allowed[-1]}{step}")
        if sizes.setdefault(dim, size) != size:
            raise InputError(
                f"{found}; expected {tensor} with the same {dim} in every input, but another input has {sizes[dim]}"
            )

    def _infer(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Check the arrays, send a request, and return the outputs by name.

        Raises:
            InputError: an array does not fit the model's input.
            ServerError: there is no answer, or it does not fit the model's outputs.
        """
        self.check(feed)
        with self._faults():
            wanted = [self._library.InferRequestedOutput(tensor.name) for tensor in self.outputs]
            limit = {"client_timeout": self.limit_s} if self._scheme == "grpc" else {}
            answer = self._connection().infer(
                self.name, encoded(self._library, feed), model_version=self.version, outputs=wanted, **limit
            )
            return {tensor.name: self._output(answer.as_numpy(tensor.name), tensor) for tensor in self.outputs}

    def _connection(self) -> Any:
        if "connection" not in self._mine.__dict__:
            self._mine.connection = connected(self._library, self._scheme, self._address, self.limit_s)
        return self._mine.connection

    def _output(self, array: np.ndarray | None, tensor: Tensor) -> np.ndarray:
        if array is None:
            raise ServerError(f"{self.url}: {self.name}: the answer lacks output {tensor.name!r}")
        if array.dtype != tensor.dtype or array.ndim != len(tensor.shape):
            got = f"{array.dtype}[{','.join(map(str, array.shape))}]"
            raise ServerError(f"{self.url}: {self.name}: output {tensor.name!r} is {got}; expected {tensor}")
        return array

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except ServerError:
            raise
        except Exception as e:  # tritonclient does not catch errors of gevent, grpc, json and its own parser
            self.close()
            reason = next((line.strip() for line in str(e).splitlines() if line.strip()), type(e).__name__)
            raise ServerError(f"{self.url}: {self.name}: no answer within {self.limit_s:g} s: {reason}") from e


def connected(library: Any, scheme: str, address: str, limit_s: float) -> Any:
    """Return a client of `tritonclient.http` or `tritonclient.grpc`."""
    limits = {"connection_timeout": limit_s, "network_timeout": limit_s}  # gRPC takes a limit for each call
    return library.InferenceServerClient(address, **(limits if scheme == "http" else {}))


def encoded(library: Any, feed: Mapping[str, np.ndarray]) -> list[Any]:
    """Encode arrays as the inputs of a request."""
    from tritonclient.utils import np_to_triton_dtype

    tensors = []
    for name, array in feed.items():
        tensor = library.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(np.ascontiguousarray(array))
        tensors.append(tensor)
    return tensors


def printable(text: str) -> str:
    """Return a text with an escape for what cannot be printed: a server may answer with control sequences for a terminal."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def main(model: type[TritonModel], arguments: Sequence[str] | None = None) -> int:
    """Send one request and print the outputs; return the exit code."""
    parser = argparse.ArgumentParser(description=f"Send a request to the model {model.name} on a Triton server.")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="http://host:port or grpc://host:port")
    parser.add_argument("--version", default="", help="version of the model; default: by the server's version policy")
    parser.add_argument("--limit-s", type=float, default=30.0, help="time limit for the answer")
    parser.add_argument(
        "inputs", nargs="?", type=Path, help="an .npz file with an array for each input; default: a stored sample"
    )
    given = parser.parse_args(arguments)
    try:
        with model(given.url, given.version, given.limit_s) as client:
            feed = dict(np.load(given.inputs, allow_pickle=False)) if given.inputs else client.example()
            answer = client._infer(feed)
    except (ServerError, OSError, ValueError) as e:
        print(f"error: {printable(str(e))}", file=sys.stderr)
        return 2
    for name, array in answer.items():
        print(f"{name}: {array.dtype}[{','.join(map(str, array.shape))}]\n{array}")
    return 0


# Below: the model. Everything above is the same in every client.


class Digits(TritonModel):
    """The model `digits`.

    Takes: image float32[batch,1,8,8]; batch 1 to 64.
    Gives: logits float32[batch,10].
    """

    name: ClassVar[str] = "digits"
    inputs: ClassVar[tuple[Tensor, ...]] = (Tensor("image", "float32", ("batch", 1, 8, 8)),)
    outputs: ClassVar[tuple[Tensor, ...]] = (Tensor("logits", "float32", ("batch", 10)),)
    sizes: ClassVar[Mapping[str, range]] = {"batch": range(1, 65)}

    def infer(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs by name."""
        return self._infer({"image": image})


if __name__ == "__main__":
    sys.exit(main(Digits))
