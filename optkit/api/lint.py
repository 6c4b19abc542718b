"""`optkit lint`: what is wrong with a Triton model repository, without a server."""

from pathlib import Path

from optkit.api.arguments import StrPath
from optkit.serving.triton.lint import LintRecord
from optkit.serving.triton.lint import lint as lint_repository


def lint(repository: StrPath, *, fix: bool = False, server_gpus: int | None = None, strict: bool = False) -> LintRecord:
    """Find what is wrong with a Triton model repository, without a server and without running its models.

    Args:
        repository: the folder of models.
        fix: fix what is safe to fix; a config.pbtxt that was changed stays beside it as config.pbtxt.orig.
        server_gpus: how many GPUs the server will have; None: not known.
        strict: the server runs with --disable-auto-complete-config; what relies on auto-completion is an error.

    Returns:
        every finding; `passed` says whether a server would load the repository.

    Raises:
        ArtifactError: it is no repository.
        OutputError: a fix cannot be written.
    """
    return lint_repository(Path(repository), fix=fix, gpus=server_gpus, strict=strict)
