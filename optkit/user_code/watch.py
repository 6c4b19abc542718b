"""What the user's code reads while it runs: files, folders, environment variables, installed packages.

An audit hook sees every `open` and every listing of a folder, also those of libraries that the code calls, such as `torch.load` and
`numpy.load`, and those of forked workers, such as a DataLoader's. Files that a library opens in C are seen where `NATIVE` names its function.
"""

import contextlib
import functools
import importlib.util
import linecache
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from optkit.system.temporary import temporary_name, temporary_root
from optkit.user_code.lines import is_pythons, is_users

# Functions that open a file in C, where no hook sees it: module, name. The first argument is the file.
NATIVE = (("safetensors", "safe_open"), ("torch.jit", "load"), ("torch.export", "load"), ("cv2", "imread"))
_SYSTEM = ("/proc/", "/sys/", "/dev/", "/run/")  # the state of the machine, and no file of the user
_SHELL = frozenset(["_", "COLUMNS", "LINES", "OLDPWD", "PWD", "PYTEST_CURRENT_TEST", "SHLVL"])  # of no effect
_WRITES = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND

# Of a file: inode, size, and the times of its content and of its entry, which no program can set back; None where it is missing.
State = tuple[int, int, int, int] | None


@dataclass(eq=False)  # two that have read the same are still two
class Observed:
    """What code has read so far; a file with its state at the first reading."""

    files: dict[str, State] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    variables: dict[str, str | None] = field(default_factory=dict)  # name -> the value that was read
    packages: set[str] = field(default_factory=set)  # import names
    written: set[str] = field(default_factory=set)  # by the code itself; what it reads of them is its own


owners: dict[str, tuple[str, ...]] = {}  # target -> whose code it is, where it was loaded in this process
_observed: dict[str, Observed] = {}  # owner -> what its code has read in this process
at_import: dict[str, Observed] = {}  # a file of the user -> what was read while it was imported
_active: list[tuple[str, Observed]] = []  # those whose code is running, in all threads
written_by_optkit: set[Path] = set()  # the folders of runs, which are not the user's
set_by_code: dict[str, str | None] = {}  # variables that the user's code has set -> their value before
_from_children: int | None = None  # a file without a name, which forked workers write their paths to
_is_child = False
_collected = 0
_searched = 0  # modules, when `NATIVE` was last looked for


def observed(owner: str) -> Observed:
    """Return what the code of an owner has read so far: a package of `loader`, or the name of a module."""
    _collect_from_children()
    return _observed.setdefault(owner, Observed())


@contextlib.contextmanager
def watching(owner: str) -> Iterator[None]:
    """Record what is read inside the block, by any thread, as read by the code of the owner."""
    _install()
    entry = (owner, _observed.setdefault(owner, Observed()))
    _see_native()
    _active.append(entry)
    try:
        yield
    finally:
        _active.remove(entry)


@contextlib.contextmanager
def recording() -> Iterator[Observed]:
    """Yield what is read inside the block alone, by any code."""
    _install()
    entry = ("", Observed())
    _active.append(entry)
    try:
        yield entry[1]
    finally:
        _active.remove(entry)


def note_package(owner: str, name: str) -> None:
    """Note that the code of an owner imports an installed package."""
    for seen in (_observed.setdefault(owner, Observed()), *(seen for _, seen in _active)):
        seen.packages.add(name)


def has_changed(owner: str) -> bool:
    """Whether a file or a variable that the code of an owner has read in this process is another one now."""
    seen = observed(owner)
    return any(file_state(path) != state for path, state in seen.files.items()) or any(
        name not in set_by_code and os.environ.get(name) != value for name, value in seen.variables.items()
    )


def forget(owner: str) -> None:
    """Forget what the code of an owner has read, because it is imported again."""
    with contextlib.suppress(KeyError):
        seen = _observed[owner]
        for kind in (seen.files, seen.folders, seen.variables, seen.packages, seen.written):
            kind.clear()


def file_state(path: str) -> State:
    """Return what changes when a file is replaced or written; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - called at each open
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@functools.cache
def _install() -> None:
    """Start to watch; a hook cannot be removed, and does nothing while no code of the user runs."""
    global _from_children
    with contextlib.suppress(OSError):  # a full or missing TMPDIR: what forked workers read is not seen
        path = temporary_root() / temporary_name("reads")
        _from_children = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        path.unlink()  # a file without a name is gone with its last process, however that ends
    if importlib.util.find_spec("safetensors"):
        importlib.import_module(
            "safetensors"
        )  # it imports nothing itself; its own modules take `safe_open` when they are imported
    sys.addaudithook(_hook)
    os.environ.__class__ = _Environment  # the same object, which libraries already hold
    os.register_at_fork(after_in_child=_in_child)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _active:
        return
    if event == "open":
        if not _shows_lines(sys._getframe(1)):
            _opened(*args)
    elif event in ("os.listdir", "os.scandir"):
        asking = sys._getframe(1).f_code.co_filename
        if not asking.startswith("<frozen importlib"):  # the import system looks into every folder of a path
            _listed(args[0])


def _shows_lines(frame: FrameType | None) -> bool:
    """Whether a file is opened for the lines in a traceback: `linecache`, by `tokenize`."""
    for _ in range(3):
        if frame is None:
            return False
        if frame.f_code.co_filename == linecache.__file__:
            return True
        frame = frame.f_back
    return False


def _opened(given: Any, mode: Any, flags: Any) -> None:
    path = _path(given)
    if path is None:
        return
    writes = any(letter in mode for letter in "wax") if isinstance(mode, str) else bool((flags or 0) & _WRITES)
    if writes:
        for _, seen in _active:
            seen.written.add(path)
    elif _is_watched(path):
        _read(path)


def _read(path: str) -> None:
    state = file_state(path)
    for owner, seen in _active:
        if path not in seen.written and path not in seen.files:
            seen.files[path] = state
            _tell_parent(owner, path)


def _listed(given: Any) -> None:
    path = _path("." if given is None else given)
    if path is not None and _is_watched(path):
        for _, seen in _active:
            seen.folders.add(path)


def _path(given: Any) -> str | None:
    """Return an absolute path; None for a file that is known by its number."""
    if isinstance(given, int) or given is None:
        return None
    try:
        path = os.path.abspath(os.fsdecode(given))  # noqa: PTH100 - called at each open
    except (TypeError, ValueError, OSError):
        return None
    if path.endswith(".pyc"):
        with contextlib.suppress(ValueError, NotImplementedError):
            return importlib.util.source_from_cache(path)
    return path


@functools.lru_cache(maxsize=4096)
def _is_watched(path: str) -> bool:
    return is_users(path) and not path.startswith(_SYSTEM)


class _Environment(type(os.environ)):  # type: ignore[misc]  # os._Environ has no public name
    """`os.environ`, which notes what the user's own lines read and set."""

    def __getitem__(self, name: str) -> str:
        if not _active or name in _SHELL or not _is_users_line(sys._getframe(1)):
            return super().__getitem__(name)  # type: ignore[no-any-return]
        value: str | None = None
        try:
            value = super().__getitem__(name)
            return value
        finally:
            for _, seen in _active:
                seen.variables.setdefault(name, set_by_code.get(name, value))

    def __setitem__(self, name: str, value: str) -> None:
        self._note_before(name)
        super().__setitem__(name, value)

    def __delitem__(self, name: str) -> None:
        self._note_before(name)
        super().__delitem__(name)

    def _note_before(self, name: str) -> None:
        if _active and name not in set_by_code:
            try:
                set_by_code[name] = super().__getitem__(name)
            except KeyError:
                set_by_code[name] = None


def _is_users_line(frame: FrameType | None) -> bool:
    """Whether the innermost line outside of Python's own library is the user's."""
    while frame and _is_pythons(frame.f_code.co_filename):
        frame = frame.f_back
    return frame is not None and is_users(frame.f_code.co_filename)


_is_pythons = functools.lru_cache(maxsize=4096)(is_pythons)


def _see_native() -> None:
    """Let the functions of `NATIVE` say which file they open, in every module that has them by now; else they do what they did."""
    global _searched
    if len(sys.modules) == _searched:
        return
    _searched = len(sys.modules)
    for module, name in NATIVE:
        original = getattr(sys.modules.get(module), name, None)
        if original is None or hasattr(original, "optkit_sees"):
            continue
        seen = _seeing(original)
        for other in list(sys.modules.values()):
            if getattr(other, "__dict__", {}).get(name) is original:
                setattr(other, name, seen)


def _seeing(original: Any) -> Any:
    """Return what a caller cannot tell from a function or class that opens a file, but that notes the file."""

    def note(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args[0] if args else next(iter(kwargs.values()), None)
        if _active and isinstance(given, (str, os.PathLike)):
            _opened(given, "rb", 0)

    if isinstance(original, type):  # in C, where it cannot be inherited from

        class Kind(type):
            def __instancecheck__(cls, instance: object) -> bool:
                return isinstance(instance, original)

            def __call__(cls, *args: Any, **kwargs: Any) -> Any:
                note(args, kwargs)
                return original(*args, **kwargs)

        return Kind(original.__name__, (), {"__module__": original.__module__, "optkit_sees": original})

    @functools.wraps(original)
    def opening(*args: Any, **kwargs: Any) -> Any:
        note(args, kwargs)
        return original(*args, **kwargs)

    opening.optkit_sees = original  # type: ignore[attr-defined]
    return opening


def _in_child() -> None:
    global _is_child
    _is_child = True


def _collect_from_children() -> None:
    """Take over what forked workers have read."""
    global _collected
    if _from_children is None or _is_child:
        return
    while part := os.pread(_from_children, 1 << 20, _collected):
        whole = part[: part.rfind(b"\n") + 1]
        if not whole:
            return
        _collected += len(whole)
        for line in whole.split(b"\n")[:-1]:
            owner, _, path = os.fsdecode(line).partition("\0")
            seen = _observed.setdefault(owner, Observed())
            if path not in seen.written:
                seen.files.setdefault(path, file_state(path))


def _tell_parent(owner: str, path: str) -> None:
    if _is_child and _from_children is not None:
        with contextlib.suppress(OSError):
            os.write(_from_children, os.fsencode(f"{owner}\0{path}\n"))
