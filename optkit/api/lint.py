"""`optkit lint`: find problems in a Triton model repository without a server."""

from pathlib import Path

from optkit.api.arguments import StrPath
from optkit.serving.triton.lint import LintRecord
from optkit.serving.triton.lint import lint as lint_repository


def lint(repository: StrPath, *, fix: bool = False, server_gpus: int | None = None, strict: bool = False) -> LintRecord:
    """Find problems in a Triton model repository, without a server and without running its models.

    Args:
        repository: Triton model repository.
        fix: make safe fixes; the old file is kept as config.pbtxt.orig.
        server_gpus: number of GPUs of the server; None if it is unknown.
        strict: the server runs with --disable-auto-complete-config, so fields that Triton would complete are errors.

    Returns:
        all findings; `passed` is whether a server would load the repository.

    Raises:
        ArtifactError: the folder is not a model repository.
        OutputError: a fix cannot be written.
    """
    return lint_repository(Path(repository), fix=fix, gpus=server_gpus, strict=strict)
