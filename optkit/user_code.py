"""The user's own Python: `file.py:name` and `package.module:name`, found, hashed and imported."""

import ast
import functools
import hashlib
import importlib
import importlib.util
import os
import re
import sys
import traceback
from modulefinder import ModuleFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from optkit.errors import ModelError, first_line
from optkit.from_source import FromSource, forget_changed, import_from_source


def split_target(target: str) -> tuple[str, str]:
    """Split `file.py:name` or `package.module:name` into its two parts.

    Raises:
        ModelError: there is no name behind a colon.
    """
    where, colon, name = target.rpartition(":")
    if not colon or not where or not name.isidentifier():
        file = Path(target.partition(":")[0])
        defined = _first_definition(file)
        example = f"{file}:{defined}" if defined else "model.py:build"
        raise ModelError(f"{target!r}: expected file.py:function or package.module:function, as in {example}")
    return where, name


def _first_definition(file: Path) -> str | None:
    """Return the name of the first function or class of a file, which is not run; None where there is none."""
    try:
        body = ast.parse(file.read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, ValueError):
        return None
    return next((node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))), None)


def absolute_target(target: str, base: Path) -> str:
    """Return the target with a file's path made absolute and free of `..`; a relative one starts at `base`."""
    where, name = split_target(target)
    return f"{_absolute(base / where)}:{name}" if where.endswith(".py") else target


def target_fault(target: str) -> str | None:
    """Return what is wrong with a target as far as can be told without running it; None when nothing is."""
    try:
        where, _ = split_target(target)
        code_files(where)
    except ModelError as e:
        return str(e)
    return None


def code_files(where: str) -> dict[str, Path]:
    """Return the files that a target's code consists of, by their name relative to its folder.

    For `file.py` these are the file and all that it imports from its own folder; for a package all its Python files.

    Raises:
        ModelError: no such file or module, or a syntax error in it.
    """
    if not where.endswith(".py"):
        return _package_files(where)
    file = _absolute(Path(where))
    if not file.is_file():
        what = "is a directory" if file.is_dir() else "no such file"
        raise ModelError(f"{where}: {what}; expected a Python file. Check the path before the colon.")
    finder = ModuleFinder(path=[str(file.parent)])
    try:
        finder.run_script(str(file))
        names = (getattr(module, "__file__", None) for module in finder.modules.values())
        found = {file} | {Path(name) for name in names if name}
    except SyntaxError as e:
        raise ModelError(f"{e.filename or where}:{e.lineno}: {e.msg}") from e
    except (OSError, UnicodeDecodeError, ValueError) as e:
        raise ModelError(f"{where}: cannot be read as Python ({first_line(e)})") from e
    except AttributeError:  # ModuleFinder does not know folders without __init__.py: watch all that lies below
        found = {file, *(p for p in file.parent.rglob("*.py") if _watched(p, file.parent))}
    return {str(path.relative_to(file.parent)): path for path in sorted(found)}


def _watched(path: Path, folder: Path) -> bool:
    hidden = (part.startswith(".") or part == "site-packages" for part in path.relative_to(folder).parts)
    return path.is_file() and not any(hidden)


def _package_files(where: str) -> dict[str, Path]:
    _see_current_folder()
    try:
        spec = importlib.util.find_spec(where)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.origin:
        raise ModelError(
            f"{where}: no such module, neither installed nor below {Path.cwd()}; expected file.py:function or "
            f"package.module:function"
        )
    top = importlib.util.find_spec(where.partition(".")[0])
    folders = [Path(p) for p in (top.submodule_search_locations or [])] if top else []
    files = {p for folder in folders for p in folder.rglob("*.py") if p.is_file()} or {Path(spec.origin)}
    root = folders[0].parent if folders else Path(spec.origin).parent
    return {str(path.relative_to(root)): path for path in sorted(files)}


def code_sha256(target: str) -> str:
    """Return the hash of the code behind a target; it changes when any of its files does.

    Raises:
        ModelError: as `code_files`.
    """
    where, name = split_target(target)
    digest = hashlib.sha256(name.encode())
    for relative, path in code_files(where).items():
        digest.update(f"\0{relative}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def load(target: str) -> Any:
    """Import the object that a target names; a file is imported once for each state of its code.

    Raises:
        ModelError: no such file, module or name, or its import raises; names the user's line.
    """
    where, name = split_target(target)
    if where.endswith(".py"):
        file = _absolute(Path(where))
        code = code_sha256(target)
        _neighbours_first(file.parent)
        module = _import_file(file, code)
    else:
        _see_current_folder()
        try:
            module = importlib.import_module(where)
        except Exception as e:
            raise ModelError(f"{where}: import failed: {describe(e)}") from e
    if not hasattr(module, name):
        known = ", ".join(n for n in vars(module) if not n.startswith("_")) or "nothing"
        raise ModelError(f"{where}: has no {name!r}; it defines {known}")
    return getattr(module, name)


def _see_current_folder() -> None:
    """Make packages below the current folder importable, as `python -m` does and a console script does not; installed ones go first."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


def _absolute(path: Path) -> Path:
    """Return the one spelling of a path under which its file is imported."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute() leaves `..` in, and resolve() follows links


def defines(target: str) -> bool:
    """Whether the file or module of a target can be imported and has that name."""
    try:
        load(target)
    except ModelError:
        return False
    return True


@functools.lru_cache(maxsize=16)
def _import_file(file: Path, _code: str) -> ModuleType:
    name = f"optkit_user_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file, loader=FromSource(name, str(file)))
    if spec is None or spec.loader is None:
        raise ModelError(f"{file}: cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and torch.jit.script look their module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as e:
        del sys.modules[name]
        raise ModelError(f"{file}: import failed: {describe(e)}") from e
    return module


# What optkit itself imports after the user's code; a file or folder of such a name beside that code must not take its place.
_NEEDED = ("numpy", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "torch")


def _neighbours_first(folder: Path) -> None:
    """Let the files of a folder import their neighbours, now and for as long as their functions may do so.

    A module of the same name that lies beside another file of the user's is forgotten; that file imports it anew when it is next used.
    """
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    for name in names & set(_NEEDED) - set(sys.modules):
        importlib.import_module(name)  # the installed one, before the folder comes before it on the path
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        elsewhere = file and _is_users(file) and not Path(file).is_relative_to(folder)
        if elsewhere and name.partition(".")[0] in names - {"__main__"}:
            del sys.modules[name]
    import_from_source(folder, _is_users)
    forget_changed(folder)
    if sys.path[0] != str(folder):
        sys.path[:] = [str(folder), *(entry for entry in sys.path if entry != str(folder))]


def describe(error: BaseException) -> str:
    """Return an error of the user's code in one line: `file.py:12: ValueError: text`."""
    text = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = " ".join(text[:2] if text and text[0].endswith(":") else text[:1])  # "Found these conflicts:" tells nothing
    what = f"{type(error).__name__}: {told}" if told else type(error).__name__
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_users(f.filename)]
    return f"{frames[-1].filename}:{frames[-1].lineno}: {what}" if frames else what


_LINE = re.compile(r'File "([^"]+)", line (\d+)|# ([^\s:]+\.py):(\d+)')


def last_line_in(text: str) -> str | None:
    """Return the last line of the user's code that a traceback or a graph written as text names, as `file.py:12`."""
    found = [(m[1] or m[3], m[2] or m[4]) for m in _LINE.finditer(text)]
    users = [f"{file}:{line}" for file, line in found if _is_users(file)]
    return users[-1] if users else None


def current_line() -> str | None:
    """Return the innermost line of the user's code that is being run, as `file.py:12`."""
    frames = [f for f in traceback.extract_stack() if _is_users(f.filename)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None


def _is_users(filename: str) -> bool:
    ours = str(Path(__file__).parent)
    installed = any(part in ("site-packages", "dist-packages") for part in Path(filename).parts)
    return not (installed or filename.startswith((ours, sys.base_prefix, "<")))
