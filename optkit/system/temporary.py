"""Temporary files and folders. Each name holds the process that made it, so that what a killed process left is found and removed."""

import contextlib
import functools
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from optkit.errors import OutputError
from optkit.untrusted.paths import exists

# Process, its start in clock ticks since the system's start, and the system with its process numbers.
_NAME = re.compile(r"(?:^|\.)optkit-(?P<pid>\d+)-(?P<start>\d+)-(?P<place>[0-9a-f]{8})-[0-9a-f]{8}$")
_PREFIX_BYTES = 180  # of the file's own name; with the owner it stays below the 255 bytes of a file system
_ABANDONED_S = 10 * 24 * 3600.0  # as systemd-tmpfiles has it for /tmp


@contextlib.contextmanager
def temporary_folder(parent: Path | None = None, name: str = "") -> Iterator[Path]:
    """Make a folder, and delete it after the block with what is in it; its owner may also move it away.

    Args:
        parent: the folder to make it in; None is the system's folder for temporary files.
        name: what it is for; begins its name.

    Raises:
        OutputError: it cannot be made.
    """
    folder = _made_in_root(name) if parent is None else _made(parent, name)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """Make an empty file beside `path`, to replace it; it is deleted after the block if it is still there.

    Raises:
        OSError: it cannot be made.
    """
    file = path.with_name(temporary_name(path.name))
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield file
    finally:
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def libraries_write_to(folder: Path) -> Iterator[None]:
    """Let libraries make their temporary files in a folder of this process inside the block: theirs do not hold who made them."""
    import tempfile

    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _made(parent: Path, name: str) -> Path:
    folder = parent / temporary_name(name)
    try:
        folder.mkdir()
    except OSError as e:
        raise OutputError(f"{parent}: cannot be written ({e.strerror or e})") from e
    return folder


def _made_in_root(name: str) -> Path:
    try:
        root = temporary_root()
        sweep(root)
        folder = root / temporary_name(name)
        folder.mkdir(mode=0o700)
    except OSError as e:
        raise OutputError(
            f"the folder for temporary files cannot be written ({e.strerror or e}). "
            f"Free some space, or set TMPDIR to another folder."
        ) from e
    return folder


def temporary_root() -> Path:
    """Return the system's folder for temporary files.

    Raises:
        OSError: none can be written.
    """
    import tempfile

    if tempfile.tempdir is None:
        # As tempfile chooses, but without the file that it writes for a try, which a kill would leave.
        known = [*(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")), "/tmp", "/var/tmp"]
        folders = [os.path.abspath(folder) for folder in known if folder]  # noqa: PTH100
        usable = [folder for folder in folders if os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)]  # noqa: PTH112
        tempfile.tempdir = usable[0] if usable else tempfile.gettempdir()
    return Path(tempfile.tempdir)


def sweep(folder: Path, *, deep: bool = False, exclusive: bool = False) -> None:
    """Delete the temporary files and folders of processes that are gone. A failure to delete is ignored.

    Args:
        folder: where to look; it need not exist.
        deep: look in its folders too; links are not followed.
        exclusive: the caller holds the lock under which everything here is made. Then what was made on another machine, in another
            container or before a restart is left over too; otherwise it is deleted when nothing was written to it for ten days.
    """
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except OSError:
        return
    for entry in found:
        path, is_folder = Path(entry.path), entry.is_dir(follow_symlinks=False)
        if is_left(path, exclusive=exclusive):
            if is_folder:
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()
        elif deep and is_folder:
            sweep(path, deep=True, exclusive=exclusive)


def is_left(path: Path, *, exclusive: bool) -> bool:
    """Whether this is a temporary file or folder whose process is gone; `exclusive` as in `sweep`."""
    owner = _NAME.search(path.name)
    if owner is None:
        return False
    return _gone(owner) or (owner["place"] != _place() and (exclusive or _abandoned(path)))


def temporary_name(name: str = "") -> str:
    """Return a name that nobody else takes, for a file or folder that this process or a child of it makes."""
    short = name.encode(errors="surrogateescape")[:_PREFIX_BYTES].decode(errors="ignore")
    pid = os.getpid()
    owner = f"optkit-{pid}-{_started(pid) or 0}-{_place()}-{os.urandom(4).hex()}"
    return f".{short}.{owner}" if short else owner


def _gone(owner: re.Match[str]) -> bool:
    """Whether a process of this system has ended; a new process with its number is another one."""
    if owner["place"] != _place():
        return False
    started = _started(int(owner["pid"]))
    return started is None or started != int(owner["start"])


def _abandoned(path: Path) -> bool:
    try:
        return time.time() - path.stat(follow_symlinks=False).st_mtime > _ABANDONED_S
    except OSError:
        return False


def _started(pid: int) -> int | None:
    """Return when a process started, or None if it has ended. Systems without /proc do not say when, and the answer is 0."""
    if not exists(Path("/proc/self/stat")):
        return _runs(pid)
    try:
        # The name of the program, in parentheses, may hold anything; the fields after it are numbers and the state.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _runs(pid: int) -> int | None:
    if os.name != "posix":
        return 0  # os.kill ends a process there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 0


@functools.cache
def _place() -> str:
    """Return what distinguishes this system, since its start, from others whose processes have the same numbers."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text() + str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        text = os.uname().nodename if hasattr(os, "uname") else ""
    return hashlib.sha256(text.encode()).hexdigest()[:8]
