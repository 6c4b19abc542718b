"""A Triton Python model that runs a TorchServe handler unchanged. It runs inside Triton, where optkit is not installed.

The folder `mar/` beside this file holds the unpacked archive. The inputs hold the parts of an HTTP request to TorchServe: REQUEST is the
body, CONTENT_TYPE is its type (JSON and text are decoded as in TorchServe), and FIELD is the key of the body in the handler's data, by
default `body`. The output RESPONSE is the response body. A status of 400 or above becomes an error of the request.
"""

import importlib
import inspect
import io
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

logger = logging.getLogger(__name__)

Handle = Callable[[Any, Any], Any]


class Metrics:
    """The object `context.metrics` of a handler. It writes metrics to the log."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Return add_counter, add_time, add_size, add_percent, add_error or add_metric."""
        if not name.startswith("add_"):
            raise AttributeError(name)
        return lambda metric, value=1, *_, **__: logger.info("%s %s %s", name.removeprefix("add_"), metric, value)


class Context:
    """The context that TorchServe passes to a handler together with the requests."""

    def __init__(self, folder: Path, name: str, manifest: dict[str, Any], batch_size: int, gpu: int | None) -> None:
        self.model_name = name
        self.manifest = manifest
        self.model_yaml_config = model_yaml_config(folder, manifest)
        self.system_properties = {
            "model_dir": str(folder),
            "gpu_id": gpu,
            "batch_size": batch_size,
            "server_name": "Triton",
            "server_version": "2",
            "limit_max_image_pixels": True,
        }
        self.metrics = Metrics()
        self.begin([], [])

    def begin(self, ids: Sequence[str], headers: Sequence[dict[str, str]]) -> None:
        """Start the next batch with these request ids and headers."""
        self.request_ids = dict(enumerate(ids))
        self._headers = list(headers)
        self._status: dict[int, tuple[int, str]] = {}
        self._response: dict[int, dict[str, str]] = {}

    def get_request_id(self, idx: int = 0) -> str | None:
        """Return the id of one request of the batch."""
        return self.request_ids.get(idx)

    def get_request_header(self, idx: int, key: str) -> str | None:
        """Return a header of one request. Triton receives only the content type."""
        return self._headers[idx].get(key.lower())

    def get_all_request_header(self, idx: int) -> dict[str, str]:
        """Return the headers of one request."""
        return dict(self._headers[idx])

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Set the status of one request of the batch."""
        self._status[idx] = (code, phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        """Set the status of every request of the batch."""
        for idx in range(len(self._headers)):
            self.set_response_status(code, phrase, idx)

    def get_response_status(self, idx: int) -> tuple[int, str]:
        """Return the status of one request of the batch."""
        return self._status.get(idx, (200, ""))

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Store a response header. Triton sends no such headers."""
        self._response.setdefault(idx, {})[key] = value

    def get_response_headers(self, idx: int) -> dict[str, str]:
        """Return the headers that were set for one request."""
        return self._response.get(idx, {})

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Set the content type of the response."""
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        """Return the content type of the response."""
        return self.get_response_headers(idx).get("content-type")


class TritonPythonModel:
    """Passes the requests of one Triton execution to the handler as one batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the handler, which loads the model."""
        folder = Path(__file__).resolve().parent / "mar"
        sys.path.insert(0, str(folder))
        manifest = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text(encoding="utf-8"))
        config = json.loads(args["model_config"])
        gpu = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None
        batch_size = max(1, int(config["max_batch_size"]))
        self.batches = batch_size > 1  # tensors carry a batch dimension then
        self.context = Context(folder, manifest["model"]["modelName"], manifest, batch_size, gpu)
        self.handle, start = load_handler(manifest["model"]["handler"])
        start(self.context)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return one response for each request. A request may hold several rows."""
        batches = [read_rows(request) for request in requests]
        rows = [row for batch in batches for row in batch]
        ids = [request.request_id() for request, batch in zip(requests, batches, strict=True) for _ in batch]
        self.context.begin(ids, [{"content-type": kind} for _, kind in rows])
        try:
            answers = self.handle([data for data, _ in rows], self.context)
        except Exception as e:
            logger.exception("the handler failed")
            return [failed(f"503 Prediction failed: {type(e).__name__}: {e}") for _ in requests]
        if not isinstance(answers, list) or len(answers) != len(rows):
            found = f"{len(answers)} answers" if isinstance(answers, list) else f"a {type(answers).__name__}"
            return [failed(f"503: the handler returned {found}; expected a list of {len(rows)}") for _ in requests]
        responses, done = [], 0
        for batch in batches:
            responses.append(self._response(answers[done : done + len(batch)], done))
            done += len(batch)
        return responses

    def _response(self, answers: Sequence[Any], first: int) -> Any:
        for i in range(len(answers)):
            code, phrase = self.context.get_response_status(first + i)
            if code >= 400:
                return failed(f"{code} {phrase}: {as_bytes(answers[i]).decode(errors='replace')}")
        column = np.array([[as_bytes(answer)] for answer in answers], dtype=np.object_)
        return pb_utils.InferenceResponse([pb_utils.Tensor("RESPONSE", column if self.batches else column[0])])


def failed(reason: str) -> Any:
    """Return an error response."""
    return pb_utils.InferenceResponse([], error=pb_utils.TritonError(reason))


def read_rows(request: Any) -> list[tuple[dict[str, Any], str]]:
    """Return the rows of a request. A row is a dict of field -> value, as TorchServe passes it to a handler, and the content type."""
    bodies = column(request, "REQUEST")
    kinds = column(request, "CONTENT_TYPE") or [b"application/json"] * len(bodies)
    fields = column(request, "FIELD") or [b"body"] * len(bodies)
    return [
        ({field.decode(): decoded(body, kind.decode())}, kind.decode())
        for body, kind, field in zip(bodies, kinds, fields, strict=True)
    ]


def column(request: Any, name: str) -> list[bytes]:
    """Return the values of an input, or an empty list if the request does not have it."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return [] if tensor is None else list(tensor.as_numpy().ravel())


def decoded(body: bytes, kind: str) -> Any:
    """Decode a body like TorchServe: JSON and text if possible, otherwise the bytes."""
    try:
        if kind == "application/json":
            return json.loads(body.decode("utf-8"))
        if kind.startswith("text"):
            return body.decode("utf-8")
    except ValueError:
        logger.warning("the body is not valid %s; the handler gets the bytes", kind)
    return bytearray(body)


def as_bytes(answer: Any) -> bytes:
    """Encode a response like TorchServe."""
    if isinstance(answer, bytes | bytearray):
        return bytes(answer)
    if isinstance(answer, str):
        return answer.encode()
    if type(answer).__module__ == "torch":
        import torch

        buffer = io.BytesIO()
        torch.save(answer, buffer)
        return buffer.getvalue()
    return json.dumps(answer, indent=2).encode()


def load_handler(handler: str) -> tuple[Handle, Callable[[Any], Any]]:
    """Return the function that handles a batch and the function that initializes the handler, by TorchServe's rules.

    The first that exists is used: the function in `file.py:function`, the function `handle` of the file, the methods `handle` and
    `initialize` of the only class in the file. If the archive has no such file, the name is a handler of the package torchserve.
    """
    file, _, function = handler.partition(":")
    name = Path(file).name.removesuffix(".py")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as e:
        if e.name != name:
            raise
        module = importlib.import_module(f"ts.torch_handler.{name}")
    if hasattr(module, function or "handle"):
        entry = getattr(module, function or "handle")
        return entry, lambda context: entry(None, context)
    own = [c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__]
    if len(own) != 1:
        raise ValueError(f"handler {handler}: has {len(own)} classes; expected one, or a function handle")
    instance: Any = own[0]()
    return instance.handle, instance.initialize


def model_yaml_config(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the content of model-config.yaml, or {} if the archive has none."""
    name = manifest["model"].get("configFile")
    if not name:
        return {}
    import yaml

    return yaml.safe_load((folder / Path(name).name).read_text(encoding="utf-8")) or {}
