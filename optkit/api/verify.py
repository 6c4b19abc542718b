"""`optkit verify` and `optkit diff`: what records say of files, checked; and what changed between two builds."""

from pathlib import Path

from optkit.api.arguments import StrPath
from optkit.pipeline.diff import BuildDiff
from optkit.pipeline.diff import diff as find_changes
from optkit.pipeline.verify import Verification
from optkit.pipeline.verify import verify as check


def verify(path: StrPath) -> Verification:
    """Hash every file again, read what a record says of a file from the file itself, and name every difference.

    Args:
        path: a model file with a passport, the folder of a run, a Triton repository, an archive for TorchServe, or a model store.

    Returns:
        what was checked; `failures` are the differences, `unchecked` is what could not be read again, and why.

    Raises:
        ArtifactError: it is none of these.
    """
    return check(Path(path))


def diff(old: StrPath, new: StrPath) -> BuildDiff:
    """Explain what changed between two builds: code, weights, data, settings, versions, results.

    Args:
        old: a model file with a passport, or the folder of a run.
        new: likewise.

    Returns:
        every change in words; none where the builds are the same.

    Raises:
        ArtifactError: one of them is neither, or they are of two kinds.
    """
    return find_changes(Path(old), Path(new))
