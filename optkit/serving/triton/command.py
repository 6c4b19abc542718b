"""The command that serves a Triton repository in a container, reachable only from this machine."""

import csv
import io
import shlex
from pathlib import Path
from typing import ClassVar, Literal

from optkit.record import Document

IMAGE = "nvcr.io/nvidia/tritonserver:25.10-py3"
PORTS = (8000, 8001, 8002)  # HTTP, gRPC, metrics
_CACHE_BYTES = 256 << 20

Engine = Literal["docker", "podman"]


def serve_command(
    repository: Path,
    *,
    on_gpu: bool,
    cached: bool = False,
    engine: Engine = "docker",
    ports: tuple[int, ...] = PORTS,
    image: str = IMAGE,
) -> str:
    """Return the command line. The repository is mounted read-only, and the ports are bound to loopback.

    Args:
        repository: the folder of models.
        on_gpu: whether a model needs a GPU.
        cached: whether a model uses the response cache. The server creates the cache only if the command gives its size.
        engine: the container engine.
        image: the image of the server.
        ports: the ports of HTTP, gRPC and metrics on this machine.
    """
    published = " ".join(f"-p 127.0.0.1:{port}:{inside}" for port, inside in zip(ports, PORTS, strict=True))
    gpus = {"docker": "--gpus all ", "podman": "--device nvidia.com/gpu=all "}[engine] if on_gpu else ""
    mount = shlex.quote(_csv("type=bind", f"source={repository.absolute()}", "target=/models", "readonly"))
    cache = f" --cache-config=local,size={_CACHE_BYTES}" if cached else ""
    return f"{engine} run --rm {gpus}{published} --mount {mount} {image} tritonserver --model-repository=/models{cache}"


def _csv(*fields: str) -> str:
    """Return the value of `--mount`, which both engines read as CSV; `-v` would split a path with a colon."""
    line = io.StringIO()
    csv.writer(line).writerow(fields)  # its line end, "\r\n", also decides what is quoted
    return line.getvalue().removesuffix("\r\n")


class ServeRecord(Document):
    """The command that serves a repository."""

    schema_id: ClassVar[str] = "optkit/serve/1"

    command: str
