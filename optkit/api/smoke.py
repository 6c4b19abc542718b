"""Golden samples replayed: those of a Triton repository, of a TorchServe archive, or of a folder of archives."""

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
    """Replay golden samples against running servers, or against a local server that is started and ended.

    Args:
        package: a Triton repository, a TorchServe archive, or a folder of archives.
        urls: of running servers: http://host:port, or grpc://host:port of Triton.
        token: the inference key of a TorchServe that runs already; nobody else reads it.
        start: start a local server, ask it, and end it.
        limit_s: for a start, and for each answer.

    Returns:
        every replay; `passed` says whether all were answered as by the artifact.

    Raises:
        RecipeError: neither URLs nor `start`, or both; a URL is of another form, or TorchServe wants another token.
        ArtifactError: there are no golden samples.
        MissingDependency: no server is installed here.
        RunnerError: it does not start, or no server answers at a URL.
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
    """Return the archives that a path means: itself, or those of a model store; none where it is no such folder."""
    if path.suffix == ".mar" and not is_folder(path):
        return [path]
    return sorted(path.glob("*.mar")) if is_folder(path) else []
