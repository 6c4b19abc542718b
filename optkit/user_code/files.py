"""The files that belong to the code of a target, found from their text: nothing is run."""

import ast
import importlib.util
import itertools
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

from optkit.errors import ModelError, first_line
from optkit.untrusted.paths import is_file
from optkit.user_code.neighbours import FromSource, find_in, find_neighbour, is_installed


def module_of(file: Path) -> tuple[Path, str]:
    """Return the root folder of a file's imports, and the file's module name there.

    The root is the file's own folder, as for a script. If the file uses relative imports, or imports its own package by name, the root is
    the folder above the package, as for `python -m package.module`.

    Raises:
        SyntaxError: the file is not Python.
        OSError: the file cannot be read.
    """
    packages = len(list(itertools.takewhile(lambda folder: is_file(folder / "__init__.py"), file.parents)))
    tree = ast.parse(file.read_bytes(), str(file))
    depth = max((node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)), default=0)
    package = file.parents[packages - 1].name if packages else None
    if depth or package in {name.partition(".")[0] for name, _ in _imports(tree, "")}:
        depth = max(depth, packages)
    folder = file.parents[min(depth, len(file.parents) - 1)]
    parts = file.relative_to(folder).with_suffix("").parts
    return folder, ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def file_and_imports(file: Path) -> dict[str, Path]:
    """Return a file and all user files that it imports, directly or indirectly, by their names relative to the root of its imports.

    Raises:
        ModelError: one of them has a syntax error, or cannot be read.
    """
    try:
        folder, module = module_of(file)
        parents = _chain(folder, module)[:-1]  # `package/__init__.py` is run before `package/module.py`
        found = _followed(folder, [*parents, ModuleSpec(module, FromSource(module, str(file)), origin=str(file))])
    except SyntaxError as e:
        raise ModelError(f"{e.filename or file}:{e.lineno}: {e.msg}") from e
    except (OSError, ValueError, RecursionError, MemoryError) as e:  # the last two: nested too deeply
        raise ModelError(f"{file}: cannot be read as Python ({first_line(e)})") from e
    return {str(path.relative_to(folder)): path for path in sorted({file, *found})}


def _followed(folder: Path, specs: list[ModuleSpec]) -> set[Path]:
    found: set[Path] = set()
    while specs:
        spec = specs.pop()
        if not spec.origin or Path(spec.origin) in found:
            continue
        path = Path(spec.origin)
        found.add(path)
        if not isinstance(spec.loader, FromSource):
            continue
        package = spec.name if path.name == "__init__.py" else spec.name.rpartition(".")[0]
        tree = ast.parse(path.read_bytes(), str(path))
        for name, star in _imports(tree, package):
            if name == spec.name and is_installed(
                name, [str(folder)]
            ):  # a file with the name of a library that imports this library
                continue
            chain = _chain(folder, name)
            specs += chain
            if star and chain and chain[-1].name == name:
                specs += (part for child in _all(chain[-1]) for part in _chain(folder, f"{name}.{child}"))
    return found


def _chain(folder: Path, name: str) -> list[ModuleSpec]:
    """Return the modules `a`, `a.b` and so on of a dotted name, as far as they are the user's files."""
    parts = name.split(".")
    chain: list[ModuleSpec] = []
    spec = find_neighbour([str(folder)], [], parts[0]) if parts[0] else None
    for depth in range(1, len(parts) + 1):
        if spec is None:
            break
        chain.append(spec)
        inside = spec.submodule_search_locations or []
        spec = find_in(inside, ".".join(parts[: depth + 1]))
    return chain


def _imports(tree: ast.AST, package: str) -> Iterator[tuple[str, bool]]:
    """Yield the full name of each import (a module, or a name in a module), and whether it is a star import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute("." * node.level + (node.module or ""), package)
            for alias in node.names if base else ():
                yield (base, True) if alias.name == "*" else (f"{base}.{alias.name}", False)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            name = node.args[0].value
            if called in ("import_module", "__import__") and isinstance(name, str):
                yield _absolute(name, package), False


def _absolute(name: str, package: str) -> str:
    """Return the absolute form of a relative name in a package; empty where it leads out of the root."""
    try:
        return importlib.util.resolve_name(name, package)
    except ImportError:
        return ""


def _all(spec: ModuleSpec) -> Iterator[str]:
    """Yield the names in `__all__` of a package: `from package import *` imports the modules among them."""
    if not (spec.origin and spec.submodule_search_locations):
        return
    for node in ast.walk(ast.parse(Path(spec.origin).read_bytes(), spec.origin)):
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(node, ast.Assign) and isinstance(target, ast.Name) and target.id == "__all__":
            yield from (
                n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant) and isinstance(n.value, str)
            )
