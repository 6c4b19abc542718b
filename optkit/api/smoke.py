"""Golden samples replayed: those of a Triton repository, of a TorchServe archive, or of a folder of archives."""

from collections.abc import Sequence
from pathlib import Path

from optkit.serving.smoke import SmokeRecord
from optkit.serving.torchserve.smoke import smoke_torchserve, start_and_smoke_torchserve
from optkit.serving.triton.smoke import smoke_triton, start_and_smoke


def smoke(path: Path, urls: Sequence[str], limit_s: float, token: str | None = None) -> SmokeRecord:
    """Replay golden samples against the servers at the URLs; without a URL, against a local server that is started and ended.

    Args:
        path: what was packaged.
        urls: of running servers.
        limit_s: for a start, and for each answer.
        token: the inference key of a TorchServe that runs already; nobody else reads it.

    Raises:
        ArtifactError: there are no golden samples.
        MissingDependency: no server is installed here.
        RunnerError: it does not start, or no server answers at a URL.
        RecipeError: a URL is of another form, or TorchServe wants another token.
    """
    archives = _archives(path)
    if archives:
        return (
            smoke_torchserve(archives, urls, limit_s, token) if urls else start_and_smoke_torchserve(archives, limit_s)
        )
    return smoke_triton(path, urls, limit_s) if urls else start_and_smoke(path, limit_s)


def _archives(path: Path) -> list[Path]:
    """Return the archives that a path means: itself, or those of a model store; none where it is no such folder."""
    if path.suffix == ".mar" and not path.is_dir():
        return [path]
    return sorted(path.glob("*.mar")) if path.is_dir() else []
