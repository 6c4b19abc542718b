"""Inference requests to a Triton server over HTTP or gRPC, with a time limit."""

import contextlib
import dataclasses
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np

from optkit.artifact.tensors import Feed
from optkit.deps import require
from optkit.errors import RecipeError, RunnerError, first_line
from optkit.serving.clients.triton_template import connected, encoded

_SCHEMES = ("http", "grpc")


@dataclasses.dataclass(frozen=True)
class TensorMetadata:
    """An input or output in the server's metadata: Triton's name of the data type, and -1 for a dynamic dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class TritonClient:
    """A connection to `http://host:port` or `grpc://host:port`, as a context manager."""

    def __init__(self, url: str, limit_s: float = 30.0) -> None:
        """Store the address of the server.

        Raises:
            RecipeError: the URL has another form.
            MissingDependency: HTTP needs packages of the extra `serving`.
        """
        scheme, _, address = url.partition("://")
        if scheme not in _SCHEMES or not address or "/" in address:
            raise RecipeError(f"--url {url}: expected http://host:port or grpc://host:port, without a path")
        self.url = url
        self._scheme = scheme
        self._address = address
        self._limit_s = limit_s
        if scheme == "http":
            require("geventhttpclient", "serving")
        self._library: Any = importlib.import_module(f"tritonclient.{scheme}")
        self._client: Any = None

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            RunnerError: no Triton server responds within the limit.
        """
        self._client = connected(self._library, self._scheme, self._address, self._limit_s)
        try:
            with self._faults("no working Triton server"):
                if not self._client.is_server_live(**self._deadline):
                    raise RunnerError(
                        f"{self.url}: the server responds but is not live; expected a live server. Look at its log."
                    )
                if self._scheme == "http":  # over HTTP, every status 200 counts as live
                    self._client.get_server_metadata()["name"]
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        self._client.close()
        if self._scheme == "http":  # gevent closes sockets in its event loop, which must run once more
            require("gevent", "serving").sleep(0)

    def infer(self, model: str, version: str, feed: Feed, outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Send a request to one version of a model.

        Raises:
            RunnerError: the server refuses the request, an output is missing, or there is no answer within the limit.
        """
        return self.prepared(model, version, feed, outputs)()

    def prepared(
        self, model: str, version: str, feed: Feed, outputs: Sequence[str]
    ) -> Callable[[], dict[str, np.ndarray]]:
        """Encode a request once and return a function that sends it, like `infer`."""
        inputs = encoded(self._library, feed)
        wanted = [self._library.InferRequestedOutput(name) for name in outputs]

        def ask() -> dict[str, np.ndarray]:
            with self._faults(f"model {model!r} version {version}"):
                answer = self._client.infer(model, inputs, model_version=version, outputs=wanted, **self._deadline)
                arrays = {name: answer.as_numpy(name) for name in outputs}
            missing = [name for name, array in arrays.items() if array is None]
            if missing:
                raise RunnerError(
                    f"{self.url}: model {model!r} version {version}: the answer lacks {', '.join(missing)}"
                )
            return arrays

        return ask

    def metadata(self, model: str, version: str) -> dict[str, list[TensorMetadata]]:
        """Return the metadata of a model: its `inputs` and `outputs`.

        Raises:
            RunnerError: there is no such model, or the server does not send its metadata within the limit.
        """
        with self._faults(f"model {model!r} version {version or 'any'}"):
            as_json = {"as_json": True, **self._deadline} if self._scheme == "grpc" else {}
            found = self._client.get_model_metadata(model, version, **as_json)
            return {kind: [_described(tensor) for tensor in found[kind]] for kind in ("inputs", "outputs")}

    @property
    def _deadline(self) -> dict[str, float]:
        return {"client_timeout": self._limit_s} if self._scheme == "grpc" else {}

    @contextlib.contextmanager
    def _faults(self, what: str) -> Iterator[None]:
        try:
            with self._limited():
                yield
        except RunnerError:
            raise
        except Exception as e:  # tritonclient does not catch errors of gevent, grpc, json and its own parser
            raise RunnerError(f"{self.url}: {what}: {first_line(e)}") from e

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        """Limit the time of a whole HTTP exchange. The timeout of a connection is not enough: it restarts with each received byte."""
        if self._scheme != "http":
            yield  # gRPC calls have a deadline
            return
        gevent = require("gevent", "serving")
        over = TimeoutError(f"no complete answer within {self._limit_s:g} s")
        with gevent.Timeout(self._limit_s, over):
            yield


def _described(tensor: Any) -> TensorMetadata:
    shape = tuple(int(dim) for dim in tensor["shape"])  # strings over gRPC
    return TensorMetadata(str(tensor["name"]), str(tensor["datatype"]), shape)
