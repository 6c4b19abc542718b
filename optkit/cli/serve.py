"""`optkit smoke` and `optkit serve`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import options
from optkit.cli.output import Output, with_output

Repository = Annotated[Path, typer.Argument(help="A Triton model repository.", show_default=False)]
LimitS = Annotated[float, typer.Option("--limit-s", min=0.1, help="Time limit for a start or an answer.")]


@with_output
def smoke(
    out: Output,
    package: Annotated[
        Path,
        typer.Argument(
            help="A Triton model repository, a TorchServe archive (.mar), or a folder of these.", show_default=False
        ),
    ],
    urls: Annotated[
        list[str] | None,
        typer.Option(
            "--url",
            help="http://host:port, or grpc://host:port for Triton; may be repeated.",
            show_default=False,
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="OPTKIT_TOKEN", help="TorchServe's inference key.", show_default=False),
    ] = None,
    start: Annotated[bool, typer.Option("--start", help="Start a local server, test it, and stop it.")] = False,
    limit_s: LimitS = 60.0,
) -> None:
    """Send golden samples to a running server and compare the answers. Exit code 1: an answer differs.

    Example: optkit smoke model_repository --url http://127.0.0.1:8000 --url grpc://127.0.0.1:8001
    """
    from optkit.api.smoke import smoke as run

    with out.working():
        record = run(package, urls=urls or (), token=token, start=start, limit_s=limit_s)
    out.answer(record)
    raise typer.Exit(0 if record.passed else 1)


class Engine(StrEnum):
    """The container engine."""

    DOCKER = "docker"
    PODMAN = "podman"


def serve(
    repository: Repository,
    start: Annotated[bool, typer.Option("--start", help="Start the local server until Ctrl-C.")] = False,
    engine: Annotated[Engine, typer.Option("--engine", help="The container engine.")] = Engine.DOCKER,
    http_port: Annotated[int, typer.Option(min=1, max=65535, help="The port of HTTP.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="The port of gRPC.")] = 8001,
    metrics_port: Annotated[int, typer.Option(min=1, max=65535, help="The port of the metrics.")] = 8002,
    limit_s: LimitS = 60.0,
    as_json: options.Json = False,
) -> None:
    """Print the command that serves a Triton repository on this machine, or start a local server.

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
        out.answer(ServeRecord(command=command), command)
        return
    with TritonServer(find_triton(), repository, limit_s=limit_s, ports=ports) as server:
        out.hint(f"serving {repository} on http://{server.http} and grpc://{server.grpc}; Ctrl-C stops it")
        server.wait()
