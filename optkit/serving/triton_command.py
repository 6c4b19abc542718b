"""The command that serves a Triton repository in a container, on this machine alone."""

import shlex
from pathlib import Path
from typing import ClassVar, Literal

from optkit.record import Document

IMAGE = "nvcr.io/nvidia/tritonserver:25.10-py3"
PORTS = (8000, 8001, 8002)  # HTTP, gRPC, metrics

Engine = Literal["docker", "podman"]


def serve_command(
    repository: Path, on_gpu: bool, *, engine: Engine = "docker", image: str = IMAGE, ports: tuple[int, ...] = PORTS
) -> str:
    """Return the command line; the repository is mounted read-only, and the ports are bound to loopback."""
    published = " ".join(f"-p 127.0.0.1:{port}:{inside}" for port, inside in zip(ports, PORTS, strict=True))
    gpus = {"docker": "--gpus all ", "podman": "--device nvidia.com/gpu=all "}[engine] if on_gpu else ""
    mount = shlex.quote(f"{repository.absolute()}:/models:ro")
    return (
        f"{engine} run --rm {gpus}{published} -v {mount} {shlex.quote(image)} tritonserver --model-repository=/models"
    )


class ServeRecord(Document):
    """The command as a record."""

    schema_id: ClassVar[str] = "optkit/serve/1"

    command: str
