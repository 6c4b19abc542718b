"""What the code of a target has read, as a record for keys: each file, folder, variable and package with its state; and what has changed."""

import functools
import hashlib
import importlib.metadata
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from optkit import deps
from optkit.errors import ArtifactError
from optkit.hashing import sha256_of
from optkit.untrusted.paths import is_folder
from optkit.user_code import watch
from optkit.user_code.targets import code_files

Reads = dict[str, str]  # "file data/x.npy" -> hash, "folder data", "variable HOME", "package timm" -> version

_MISSING = "missing"
_UNKNOWN = "changed while it was read"  # equal to nothing, so what was made of it is made again


def reads(targets: Iterable[str | None]) -> tuple[Reads, ...]:
    """Return what the code of each target has read in this process so far, with its present state; nothing where it did not run.

    None stands for a target that a recipe does not have.
    """
    return tuple(_reads(watch.owners.get(target or "", ()), _base(target)) for target in targets)


def changed(recorded: Sequence[Reads], targets: Sequence[str | None]) -> str | None:
    """Return the first thing that has changed of what the code of targets had read, as `file data/x.npy`; None where there is none."""
    return next(changes(recorded, targets), None)


def changes(recorded: Sequence[Reads], targets: Sequence[str | None]) -> Iterator[str]:
    """Yield everything that has changed of what the code of targets had read."""
    if len(recorded) != len(targets):
        yield "the list of the functions"
        return
    for read, target in zip(recorded, targets, strict=True):
        yield from _changes(read, _base(target))


def changed_here(target: str) -> bool:
    """Whether something that the code of a target has read in this process is another one now."""
    return any(map(watch.has_changed, watch.owners.get(target, ())))


def _base(target: str | None) -> Path | None:
    """Return the folder of a target's file; paths near it are relative to it, so that a project can be moved."""
    where = target.rpartition(":")[0] if target else ""
    return Path(where).parent if where.endswith(".py") else None


def reads_in(seen: watch.Observed, target: str) -> Reads:
    """Return what was read in a block of `recording`, and when the files of a target were imported, with its present state."""
    where = target.rpartition(":")[0]
    files = code_files(where).values() if where.endswith(".py") else ()
    imported = (watch.at_import[str(file)] for file in files if str(file) in watch.at_import)
    return _states([seen, *imported], _base(target))


def _reads(owners: Iterable[str], base: Path | None) -> Reads:
    return _states(map(watch.observed, owners), base)


def _states(observed: Iterable[watch.Observed], base: Path | None) -> Reads:
    found: Reads = {}
    for seen in observed:
        for path, state in sorted(seen.files.items()):
            if not _is_optkits(path):
                same = watch.file_state(path) == state
                found[f"file {_named(path, base)}"] = _file_state(path) if same else _UNKNOWN
        for path in sorted(seen.folders):
            if not _is_optkits(path):
                found[f"folder {_named(path, base)}"] = _folder_state(path)
        found |= {f"variable {name}": _variable_state(value) for name, value in sorted(seen.variables.items())}
        found |= _packages(seen)
    return found


def _changes(recorded: Reads, base: Path | None) -> Iterator[str]:
    for name, state in recorded.items():
        kind, _, what = name.partition(" ")
        match kind:
            case "file":
                now = _file_state(_path(what, base))
            case "folder":
                now = _folder_state(_path(what, base))
            case "variable":
                now = _variable_state(watch.set_by_code.get(what, os.environ.get(what)))
            case "package":
                now = deps.version(what) or _MISSING
            case _:
                now = _UNKNOWN
        if now != state or now == _UNKNOWN:
            yield name


def _named(path: str, base: Path | None) -> str:
    """Return a path relative to the code's folder where it lies there or beside it, else absolute."""
    near = base is not None and Path(path).is_relative_to(base.parent) and len(base.parts) > 2
    return os.path.relpath(path, base) if near else path


def _path(named: str, base: Path | None) -> str:
    return os.path.normpath((base or Path("/")) / named)


def _is_optkits(path: str) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in watch.written_by_optkit)


def _file_state(path: str) -> str:
    state = watch.file_state(path)
    return _MISSING if state is None else _sha256(path, state)


@functools.lru_cache(maxsize=4096)
def _sha256(path: str, _state: tuple[int, int, int, int]) -> str:
    """Return the hash of a file, read once for each state in this process: several records name the same files."""
    try:
        return sha256_of(Path(path))
    except ArtifactError:
        return "is a folder" if is_folder(path) else _UNKNOWN  # a FIFO or a device, or without the right to read it


def _folder_state(path: str) -> str:
    """Return the hash of the names in a folder, without hidden ones and what Python caches."""
    try:
        names = sorted(name for name in os.listdir(path) if name != "__pycache__" and not name.startswith("."))  # noqa: PTH208
    except OSError:
        return _MISSING
    return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()


def _variable_state(value: str | None) -> str:
    """Return the hash of a variable's value, which may be a secret."""
    return _MISSING if value is None else hashlib.sha256(value.encode(errors="surrogateescape")).hexdigest()


def _packages(seen: watch.Observed) -> Reads:
    found: Reads = {}
    for name in sorted(seen.packages):
        distribution = name if deps.version(name) else next(iter(_distributions().get(name, ())), None)
        if distribution and (version := deps.version(distribution)):
            found[f"package {distribution}"] = version
    return found


@functools.cache
def _distributions() -> "dict[str, Sequence[str]]":
    return dict(importlib.metadata.packages_distributions())
