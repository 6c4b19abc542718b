"""Targets, `file.py:name` or `package.module:name`: their files, their hash, and the object."""

import ast
import hashlib
import importlib
import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from optkit.errors import ModelError, OptkitError, interrupted
from optkit.untrusted.paths import is_file, is_folder
from optkit.user_code import watch
from optkit.user_code.files import file_and_imports, module_of
from optkit.user_code.in_memory import function_sha256, in_memory_fault, is_in_memory, object_in_memory
from optkit.user_code.lines import describe, is_users
from optkit.user_code.loader import owner_of, user_folder
from optkit.user_code.neighbours import find_in


def split_target(target: str) -> tuple[str, str]:
    """Split `file.py:name` or `package.module:name` into its two parts.

    Raises:
        ModelError: there is no name after a colon.
    """
    where, colon, name = target.rpartition(":")
    is_module = all(part.isidentifier() for part in where.split("."))
    if not colon or not (where.endswith(".py") or is_module) or not name.isidentifier():
        file = Path(target.partition(":")[0])
        defined = _first_definition(_absolute(str(file)))
        example = f"{file}:{defined}" if defined else "model.py:build"
        raise ModelError(f"{target!r}: expected file.py:function or package.module:function, as in {example}")
    return where, name


def _first_definition(file: Path) -> str | None:
    """Return the name of the first function or class of a file, without running it; None where there is none."""
    if not is_file(file):
        return None
    try:
        body = ast.parse(file.read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: nested too deeply
        return None
    return next((node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))), None)


def absolute_target(target: str, base: Path) -> str:
    """Return the target with a file's path made absolute and free of `..`; a relative one starts at `base`."""
    if is_in_memory(target):
        return target
    where, name = split_target(target)
    return f"{_absolute(where, base)}:{name}" if where.endswith(".py") else target


def target_fault(target: str) -> str | None:
    """Return the fault of a target that can be found without running it, or None."""
    if is_in_memory(target):
        return in_memory_fault(target)
    try:
        where, _ = split_target(target)
        code_files(where)
    except ModelError as e:
        return str(e)
    return None


def code_files(where: str) -> dict[str, Path]:
    """Return the files of a target's code, by their names relative to the root of its imports.

    For `file.py` these are the file and all user files that it imports; for a package all its Python files.

    Raises:
        ModelError: there is no such file or module, or it has a syntax error.
    """
    if not where.endswith(".py"):
        return _package_files(where)
    file = _absolute(where)
    if not is_file(file):
        what = "is a directory" if is_folder(file) else "no such file"
        raise ModelError(f"{where}: {what}; expected a Python file. Check the path before the colon.")
    return file_and_imports(file)


def module_name(where: str) -> str:
    """Return the module to import for a target's code, when the files of `code_files` are in a folder on the path.

    Raises:
        ModelError: the file is not Python.
    """
    if not where.endswith(".py"):
        return where
    code_files(where)
    return module_of(_absolute(where))[1]


def _package_files(where: str) -> dict[str, Path]:
    top = where.partition(".")[0]
    spec = _below_installed(where) if _installed(top) else _below_current_folder(where)
    if spec is None or not spec.origin:
        raise ModelError(
            f"{where}: no such module, neither installed nor below {Path.cwd()}; expected file.py:function or "
            f"package.module:function"
        )
    package = _installed(top) or _below_current_folder(top)
    folders = [Path(p) for p in (package.submodule_search_locations or [])] if package else []
    files = {p for folder in folders for p in folder.rglob("*.py") if is_file(p)} or {Path(spec.origin)}
    root = folders[0].parent if folders else Path(spec.origin).parent
    return {str(path.relative_to(root)): path for path in sorted(files)}


def _installed(top: str) -> ModuleSpec | None:
    """Return the module that Python itself finds for a name without dots."""
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None


def _below_installed(where: str) -> ModuleSpec | None:
    """Return an installed module without importing its parents, which `importlib.util.find_spec` does."""
    parts = where.split(".")
    spec = _installed(parts[0])
    for depth in range(2, len(parts) + 1):
        inside = spec.submodule_search_locations if spec else None
        spec = PathFinder.find_spec(".".join(parts[:depth]), inside) if inside else None
    return spec


def _below_current_folder(where: str) -> ModuleSpec | None:
    """Return a module below the current folder; `python -m` would find it, a console script does not."""
    parts = where.split(".")
    spec = find_in([str(Path.cwd())], parts[0])
    for depth in range(2, len(parts) + 1):
        spec = spec and find_in(spec.submodule_search_locations or [], ".".join(parts[:depth]))
    return spec


def code_sha256(target: str) -> str:
    """Return the hash of the code behind a target; it changes when any of its files does.

    Raises:
        ModelError: as `code_files`.
    """
    if is_in_memory(target):
        return function_sha256(object_in_memory(target))
    where, name = split_target(target)
    digest = hashlib.sha256(name.encode())
    for relative, path in code_files(where).items():
        digest.update(f"\0{relative}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def load(target: str) -> Any:
    """Import the object that a target names; a file is imported once for each state of its code.

    Raises:
        ModelError: there is no such file, module or name, or its import raises; the message has the user's line.
        KeyboardInterrupt: Ctrl-C, also where Python has wrapped it in another error.
    """
    if is_in_memory(target):
        found = object_in_memory(target)
        watch.owners[target] = (owner_of(found),)
        return found
    where, name = split_target(target)
    try:
        module = _imported(where)
    except OptkitError:
        raise
    except SystemExit as e:
        raise ModelError(f"{where}: import failed: {describe(e)}. {_GUARD}") from e
    except Exception as e:
        if interrupted(e):
            raise KeyboardInterrupt from e
        raise ModelError(f"{where}: import failed: {describe(e)}") from e
    if not hasattr(module, name):
        known = ", ".join(n for n in vars(module) if not n.startswith("_")) or "nothing"
        raise ModelError(f"{where}: has no {name!r}; it defines {known}")
    found = getattr(module, name)
    watch.owners[target] = tuple(dict.fromkeys((module.__name__.partition(".")[0], owner_of(found))))
    return found


_GUARD = (
    "The file ends the program when it is imported, like a script that parses arguments. Move the code of the script "
    'below `if __name__ == "__main__":`.'
)


def _imported(where: str) -> ModuleType:
    if not where.endswith(".py"):
        if _installed(where.partition(".")[0]) or not _below_current_folder(where):
            with watch.watching(where.partition(".")[0]):
                return importlib.import_module(where)
        return user_folder(Path.cwd()).load(where, None, code_sha256(f"{where}:module"))
    code = code_sha256(f"{where}:module")
    file = _absolute(where)
    folder, module = module_of(file)
    if str(folder) in sys.path and not is_users(str(folder)):
        with watch.watching(module.partition(".")[0]):
            return importlib.import_module(module)
    private = module if module.count(".") == len(file.relative_to(folder).parts) - 1 else module.replace(".", "_dot_")
    return user_folder(folder).load(private, file, code)


def _absolute(path: str, base: Path = Path()) -> Path:
    """Return the canonical spelling of a path for imports; `~` is the home folder."""
    # Path.absolute() keeps `..`, and resolve() follows links; Path.expanduser() raises for an unknown user.
    return Path(os.path.abspath(base / os.path.expanduser(path)))  # noqa: PTH100, PTH111


def defines(target: str) -> bool:
    """Whether the file or module of a target can be imported and has that name."""
    try:
        load(target)
    except ModelError:
        return False
    return True
