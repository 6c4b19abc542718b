"""`optkit smoke`: replay the golden samples of a Triton repository, a TorchServe archive, or a folder of archives."""

from collections.abc import Sequence
from pathlib import Path

from optkit.api.arguments import StrPath
from optkit.errors import RecipeError
from optkit.serving.smoke import SmokeRecord
from optkit.serving.torchserve.smoke import smoke_torchserve, start_and_smoke_torchserve
from optkit.serving.triton.smoke import smoke_triton, start_and_smoke
from optkit.untrusted.paths import is_folder


def smoke(
    package: StrPath, *, urls: Sequence[str] = (), token: str | None = None, start: bool = False, limit_s: float = 60.0
) -> SmokeRecord:
    """Send golden samples to running servers, or to a local server that is started and stopped, and compare the outputs.

    Args:
        package: Triton model repository, TorchServe archive (.mar), or folder of archives.
        urls: URLs of running servers: http://host:port, or grpc://host:port for Triton.
        token: inference key of TorchServe.
        start: start a local server, test it, and stop it.
        limit_s: time limit in seconds for the start of the server and for each response.

    Returns:
        the result for each server; `passed` is whether all outputs match the artifact's.

    Raises:
        RecipeError: neither `urls` nor `start` is given, or both are; a URL is malformed; or TorchServe rejects the token.
        ArtifactError: there are no golden samples.
        MissingDependency: no server is installed here.
        RunnerError: the server does not start, or no server responds at a URL.
    """
    if bool(urls) == start:
        raise RecipeError("smoke: expected either --url of a running server, or --start")
    path = Path(package)
    archives = _archives(path)
    if archives:
        return (
            smoke_torchserve(archives, urls, limit_s, token) if urls else start_and_smoke_torchserve(archives, limit_s)
        )
    return smoke_triton(path, urls, limit_s) if urls else start_and_smoke(path, limit_s)


def _archives(path: Path) -> list[Path]:
    """Return the archive at a path, or the archives in a folder; empty for any other path."""
    if path.suffix == ".mar" and not is_folder(path):
        return [path]
    return sorted(path.glob("*.mar")) if is_folder(path) else []
