"""Free disk space, before much is written: an error at once rather than after minutes of work."""

import shutil
from pathlib import Path

from optkit.errors import OutputError
from optkit.untrusted.paths import exists

_MIB = 1 << 20


def check_space(folder: Path, needed_bytes: int, purpose: str) -> None:
    """Check that a disk has room for files.

    Args:
        folder: where they go; it need not exist yet.
        needed_bytes: their size.
        purpose: what is written, for the message.

    Raises:
        OutputError: there is less room.
    """
    there = next((path for path in (folder, *folder.absolute().parents) if exists(path)), folder)
    try:
        free = shutil.disk_usage(there).free
    except OSError:
        return  # writing reports what is wrong
    if free < needed_bytes:
        raise OutputError(
            f"{folder}: the disk has {free / _MIB:.1f} MiB left; {purpose} needs {needed_bytes / _MIB:.1f} MiB. "
            f"Free some space, or choose another folder."
        )
