"""Models on running servers as endpoints for repeated requests: Triton over HTTP and gRPC, TorchServe over HTTP."""

import abc
import contextlib
import json
import mimetypes
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from optkit.artifact.findings import Tolerance
from optkit.artifact.tensors import DType, Feed, TensorSpec
from optkit.data import Feeds, absolute_data, random_feed
from optkit.errors import FeedError, RecipeError, RunnerError
from optkit.record import validation_error_as
from optkit.serving.clients.torchserve_template import ServerError, TorchServeModel
from optkit.serving.golden import read_golden
from optkit.serving.triton.connection import TensorMetadata, TritonClient
from optkit.untrusted.paths import is_file, is_folder
from optkit.untrusted.reading import MAX_BODY_BYTES, read_bytes

MAX_REQUESTS = 32  # the answers of all are compared; the first request is timed

_TRITON = re.compile(
    r"(?P<server>(?:http|grpc)://[^/]+)(?:/v2)?/models/(?P<model>[^/]+)(?:/versions/(?P<version>\d+))?/?"
)
_TORCHSERVE = re.compile(r"(?P<server>https?://[^/]+)/predictions/(?P<model>[^/]+)(?:/(?P<version>[^/]+))?/?")
_DTYPES = {
    "FP32": DType.FLOAT32,
    "FP16": DType.FLOAT16,
    "FP64": DType.FLOAT64,
    "INT64": DType.INT64,
    "INT32": DType.INT32,
    "INT16": DType.INT16,
    "INT8": DType.INT8,
    "UINT8": DType.UINT8,
    "BOOL": DType.BOOL,
}


@dataclass(frozen=True)
class Body:
    """The body of one request to TorchServe."""

    content: bytes
    content_type: str


Request = Feed | Body


@dataclass(frozen=True)
class Answer:
    """An answer: the numbers of each output, and everything else as text."""

    numbers: dict[str, np.ndarray]
    rest: str = ""


Ask = Callable[[], Answer]
Prepare = Callable[[Request], Ask]  # encodes a request once and returns a function that sends it


@dataclass(frozen=True)
class Endpoint(abc.ABC):
    """One model, or one version of a model, on a running server."""

    kind: ClassVar[str]
    url: str  # as the user gave it
    server: str
    model: str
    version: str  # empty: the server chooses

    @abc.abstractmethod
    def session(self, limit_s: float) -> contextlib.AbstractContextManager[Prepare]:
        """Open a separate connection. A request in it raises RunnerError if there is no answer within the limit."""

    @abc.abstractmethod
    def requests(self, data: str | None, seed: int, limit_s: float) -> tuple[list[Request], str]:
        """Return the requests, and the source of their values as text.

        Raises:
            FeedError: the data cannot be read, does not fit, or is missing.
            RunnerError: the server does not report the inputs of the model.
        """


class TritonEndpoint(Endpoint):
    """A model on a Triton server."""

    kind: ClassVar[str] = "triton"

    @contextlib.contextmanager
    def session(self, limit_s: float) -> Iterator[Prepare]:
        """Open a connection."""
        with TritonClient(self.server, limit_s) as client:
            outputs = [output.name for output in client.metadata(self.model, self.version)["outputs"]]

            def prepare(request: Request) -> Ask:
                if isinstance(request, Body):
                    raise TypeError("Triton takes arrays")
                ask = client.prepared(self.model, self.version, request, outputs)
                return lambda: _split(ask())

            yield prepare

    def requests(self, data: str | None, seed: int, limit_s: float) -> tuple[list[Request], str]:
        """Read the feeds, or make a random feed for the inputs that the server reports."""
        with TritonClient(self.server, limit_s) as client:
            inputs = client.metadata(self.model, self.version)["inputs"]
        specs = [self._spec(tensor) for tensor in inputs]
        if data is None:
            return [self._drawn(specs, seed)], "seeded random"
        golden = _golden(data)
        if golden is not None:
            return [golden], "golden sample"
        feeds = Feeds(absolute_data(data, Path()), specs)
        return [feed for _, feed in zip(range(MAX_REQUESTS), feeds, strict=False)], "real samples"

    def _spec(self, tensor: TensorMetadata) -> TensorSpec:
        name, dtype = tensor.name, _DTYPES.get(tensor.datatype)
        if dtype is None:
            raise FeedError(
                f"{self.url}: input {name!r} is {tensor.datatype}; expected a numeric type. Other types cannot be compared."
            )
        shape = tuple(f"{name}_{i}" if dim < 0 else dim for i, dim in enumerate(tensor.shape))
        with validation_error_as(RunnerError, f"{self.url}: what the server says of an input"):
            return TensorSpec(name=name, dtype=dtype, shape=shape)

    def _drawn(self, specs: list[TensorSpec], seed: int) -> Feed:
        free = [spec for spec in specs if any(isinstance(dim, str) for dim in spec.shape[1:])]
        if free:
            raise FeedError(
                f"{self.url}: input {free[0].name!r} is {free[0].type_text}; expected fixed sizes for random values. "
                f"Give --data, for example the sample.npz of the model's client."
            )
        return random_feed(specs, {f"{spec.name}_0": 1 for spec in specs}, seed)


@dataclass(frozen=True)
class TorchServeEndpoint(Endpoint):
    """A model on TorchServe."""

    kind: ClassVar[str] = "torchserve"
    token: str | None = field(default=None, repr=False)

    @contextlib.contextmanager
    def session(self, limit_s: float) -> Iterator[Prepare]:
        """Open a connection."""
        described = {"name": self.model, "inputs": (), "outputs": (), "sizes": {}}
        model: type[TorchServeModel] = type("Asked", (TorchServeModel,), described)
        with model(self.server, self.version, self.token, limit_s) as client:

            def prepare(request: Request) -> Ask:
                if not isinstance(request, Body):
                    raise TypeError("TorchServe takes a body")

                def ask() -> Answer:
                    try:
                        return _answer(client.ask(request.content, request.content_type))
                    except ServerError as e:
                        raise RunnerError(str(e)) from e

                return ask

            yield prepare

    def requests(self, data: str | None, _seed: int, _limit_s: float) -> tuple[list[Request], str]:
        """Read the request bodies from one file or from all files of a folder."""
        if data is None:
            raise FeedError(
                f"{self.url}: TorchServe does not report the inputs of a model. Give --data: a file with a request body, for "
                f"example the sample.json of the model's client, or a folder of such files."
            )
        path = Path(data)
        files = sorted(file for file in path.iterdir() if is_file(file)) if is_folder(path) else [path]
        bodies: list[Request] = [
            Body(read_bytes(file, "a request body", MAX_BODY_BYTES, FeedError), _content_type(file))
            for file in files[:MAX_REQUESTS]
        ]
        if not bodies:
            raise FeedError(f"{data}: holds no file; expected at least one file with a request body")
        return bodies, "given requests"


def parse_endpoint(url: str, token: str | None = None) -> Endpoint:
    """Read the URL of a model on a server.

    Raises:
        RecipeError: the URL has another form.
    """
    triton, torchserve = _TRITON.fullmatch(url), _TORCHSERVE.fullmatch(url)
    if triton:
        return TritonEndpoint(url, triton["server"], triton["model"], triton["version"] or "")
    if torchserve:
        return TorchServeEndpoint(url, torchserve["server"], torchserve["model"], torchserve["version"] or "", token)
    raise RecipeError(
        f"{url}: expected http://host:port/models/NAME or grpc://host:port/models/NAME for Triton, or "
        f"http://host:port/predictions/NAME for TorchServe. To choose a version, add /versions/N (Triton) or /VERSION (TorchServe)."
    )


def _golden(data: str) -> Feed | None:
    """Return the inputs of a golden sample from a package, or None for other data."""
    path = Path(data)
    if path.suffix != ".npz" or not is_file(path):
        return None
    return read_golden(path, Tolerance()).inputs if _holds_golden(path) else None


def _holds_golden(path: Path) -> bool:
    try:
        names = zipfile.ZipFile(path).namelist()
    except Exception:  # zipfile.BadZipFile, OSError and others; reading the file as data reports the error
        return False
    return bool(names) and all(name.startswith(("input/", "output/")) for name in names)


def _content_type(file: Path) -> str:
    return mimetypes.guess_type(file.name)[0] or "application/octet-stream"


def _split(arrays: Mapping[str, np.ndarray]) -> Answer:
    """Separate the numeric arrays of an answer from its text, which Triton returns as bytes."""
    numbers = {name: array for name, array in arrays.items() if array.dtype.kind in "fiub"}
    texts = {name: [str(part) for part in arrays[name].ravel()] for name in sorted(arrays.keys() - numbers.keys())}
    return Answer(numbers, json.dumps(texts) if texts else "")


def _answer(content: Any) -> Answer:
    """Separate the numbers of a JSON answer, by output, from the rest."""
    outputs = content if isinstance(content, dict) else {"answer": content}
    numbers: dict[str, list[float]] = {str(name): [] for name in outputs}
    rest = {str(name): _without_numbers(value, numbers[str(name)]) for name, value in outputs.items()}
    return Answer({name: np.array(found) for name, found in numbers.items()}, json.dumps(rest, sort_keys=True))


def _without_numbers(value: Any, numbers: list[float]) -> Any:
    """Append all numbers of the value to `numbers`, and return the value with None in their place."""
    if isinstance(value, dict):
        return {name: _without_numbers(value[name], numbers) for name in sorted(value)}
    if isinstance(value, list):
        return [_without_numbers(part, numbers) for part in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        numbers.append(float(value))
        return None
    return value
