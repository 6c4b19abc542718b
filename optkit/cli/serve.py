"""`optkit smoke` and `optkit serve`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.output import Output, with_output

Repository = Annotated[Path, typer.Argument(help="Triton model repository.", show_default=False)]
LimitS = Annotated[
    float,
    typer.Option("--limit-s", min=0.1, help="Time limit in seconds for the start of the server and for each response."),
]


@with_output
def smoke(
    out: Output,
    package: Annotated[
        Path,
        typer.Argument(
            help="Triton model repository, TorchServe archive (.mar), or folder of archives.", show_default=False
        ),
    ],
    urls: Annotated[
        list[str] | None,
        typer.Option(
            "--url",
            help="URL of a running server: http://host:port, or grpc://host:port for Triton; repeat for each server.",
            show_default=False,
        ),
    ] = None,
    token: options.Token = None,
    start: Annotated[bool, typer.Option("--start", help="Start a local server, test it, and stop it.")] = False,
    limit_s: LimitS = 60.0,
) -> None:
    """Send golden samples to running servers and compare the outputs.

    Exit code 1: an output differs.

    Example: optkit smoke model_repository --url http://127.0.0.1:8000 --url grpc://127.0.0.1:8001
    """
    from optkit.api.smoke import smoke as run

    with out.show_progress():
        record = run(package, urls=urls or (), token=token, start=start, limit_s=limit_s)
    out.result(record)
    raise typer.Exit(0 if record.passed else 1)


class Engine(StrEnum):
    """The container engine."""

    DOCKER = "docker"
    PODMAN = "podman"


def serve(
    repository: Repository,
    start: Annotated[bool, typer.Option("--start", help="Start a local server and run it until Ctrl-C.")] = False,
    engine: Annotated[Engine, typer.Option("--engine", help="Container engine: docker or podman.")] = Engine.DOCKER,
    http_port: Annotated[int, typer.Option(min=1, max=65535, help="HTTP port.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="gRPC port.")] = 8001,
    metrics_port: Annotated[int, typer.Option(min=1, max=65535, help="Metrics port.")] = 8002,
    limit_s: LimitS = 60.0,
    as_json: options.Json = False,
) -> None:
    """Print the command that serves a Triton model repository on this machine, or start a local server.

    Example: optkit serve model_repository
    """
    from optkit.serving.triton.command import ServeRecord, serve_command
    from optkit.serving.triton.lint import uses_cache, uses_gpu
    from optkit.serving.triton.server import TritonServer, find_triton

    out = Output(as_json=as_json)
    ports = (http_port, grpc_port, metrics_port)
    on_gpu, cached = uses_gpu(repository), uses_cache(repository)
    command = serve_command(repository, on_gpu=on_gpu, cached=cached, engine=engine.value, ports=ports)
    if not start:
        out.result(ServeRecord(command=command), command)
        return
    with TritonServer(find_triton(), repository, limit_s=limit_s, ports=ports) as server:
        out.hint(f"serving {repository} on http://{server.http} and grpc://{server.grpc}; Ctrl-C stops it")
        server.wait()
