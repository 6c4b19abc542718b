"""One writer at a time: the lock of an output folder or file, which a process that ends in any way no longer holds."""

import contextlib
import datetime
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from optkit.errors import OutputError
from optkit.system.temporary import sweep
from optkit.untrusted.paths import exists, is_folder

logger = logging.getLogger(__name__)

WAIT = "OPTKIT_WAIT_S"
LOCK_FILE = ".optkit.lock"
_POLL_S = 0.1
_NAME_BYTES = 240
_MOST_REMOVALS = 100  # of the folder by other processes, between its creation and that of the lock


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Create a folder if it does not exist, and hold its lock.

    A folder that was created for the lock and is still empty after the block is removed again.

    Raises:
        OutputError: the folder cannot be written, or another process holds the lock for longer than OPTKIT_WAIT_S allows.
    """
    if exists(folder) and not is_folder(folder):
        raise OutputError(f"{folder}: is a file; expected a folder to write to")
    with _held(folder / LOCK_FILE, folder):
        yield


@contextlib.contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Create a file's folder if it does not exist, and hold the file's lock. The file itself need not exist.

    Raises:
        OutputError: the folder cannot be written, or another process holds the lock for longer than OPTKIT_WAIT_S allows.
    """
    short = path.name.encode(errors="surrogateescape")[:_NAME_BYTES].decode(errors="ignore")
    with _held(path.with_name(f".{short}.lock"), path):
        sweep(path.parent)
        yield


@contextlib.contextmanager
def _held(lock: Path, what: Path) -> Iterator[None]:
    """Hold a lock. Its file is deleted at the end; one that a killed process left is locked by nobody."""
    made: list[Path] = []
    try:
        handle = _acquire(lock, what, made)
    except OSError as e:
        raise OutputError(f"{what}: cannot be written ({e.strerror or e})") from e
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()  # first, so that nobody locks a file that is about to lose its name
        _unlock(handle)
        os.close(handle)
        _remove_empty(made)


def _acquire(lock: Path, what: Path, made: list[Path]) -> int:
    """Wait for the lock; return its open file. `made` gets the folders that were created for it, the innermost first."""
    limit = _limit_s()
    end = None if limit is None else time.monotonic() + limit
    waiting = False
    removed = 0
    while True:
        made[:] = made or [path for path in lock.parents if not exists(path)]
        lock.parent.mkdir(parents=True, exist_ok=True)  # another process may have removed it at its end
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except FileNotFoundError:
            removed += 1
            if removed > _MOST_REMOVALS:  # a folder such as /proc/self exists, and takes no file
                raise
            continue
        try:
            if _lock(handle) and _still_named(handle, lock):
                _sign(handle)
                return handle
            holder = os.pread(handle, 500, 0).decode(errors="replace").strip() or "another process"
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        if end is not None and time.monotonic() >= end:
            raise OutputError(
                f"{what}: {holder} writes to it; expected no other writer within {limit:g} s ({WAIT}). Wait until it ends, or stop it."
            )
        if not waiting:
            logger.warning("%s: %s writes to it; waiting until it ends", what, holder)
            waiting = True
        time.sleep(_POLL_S)


def _remove_empty(folders: list[Path]) -> None:
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _limit_s() -> float | None:
    """Return how long to wait for another process; None without a limit.

    Raises:
        OutputError: the environment variable is not a number.
    """
    text = os.environ.get(WAIT)
    try:
        return float(text) if text else None
    except ValueError as e:
        raise OutputError(f"{WAIT}={text}: expected a number of seconds") from e


def _sign(handle: int) -> None:
    """Write who holds the lock; on a full disk it holds without this."""
    now = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {_host()}, since {now},\n".encode(), 0)


def _host() -> str:
    return os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "this machine")


def _still_named(handle: int, lock: Path) -> bool:
    """Whether the locked file is the one that others would open; its last holder deletes it."""
    try:
        return os.path.samestat(os.fstat(handle), lock.stat())
    except FileNotFoundError:
        return False


def _lock(handle: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        return _lock_on_windows(handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock(handle: int) -> None:
    """Give the lock up, also where a child process has inherited it."""
    with contextlib.suppress(ImportError):
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_UN)


def _lock_on_windows(handle: int) -> bool:
    import msvcrt

    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except OSError:
        return False
    return True
