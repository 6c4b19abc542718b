"""The file that an `import` in a user's file means, found without running anything."""

import hashlib
import importlib.machinery
import sys
from collections.abc import Collection, Iterable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType


class FromSource(importlib.machinery.SourceFileLoader):
    """Compiles the file at each import, without cached bytecode, and stores the hash of the source.

    Python uses cached bytecode for a source of the same size and the same second. So a file that was quickly rewritten would run its old
    code under the hash of its new code. Also no `__pycache__` is left in the folder.
    """

    def get_code(self, fullname: str) -> CodeType:
        """Return the code of the current file."""
        path = self.get_filename(fullname)
        source = self.get_data(path)
        self._read = hashlib.sha256(source).digest()
        return self.source_to_code(source, path)

    def is_current(self) -> bool:
        """Whether the file is unchanged since its import."""
        try:
            return hashlib.sha256(self.get_data(self.path)).digest() == self._read
        except OSError:
            return False


def find_in(folders: Iterable[str], name: str, loader: type[FromSource] = FromSource) -> ModuleSpec | None:
    """Return the module in the first folder that has a file for the name, else the folders with that name as one namespace package.

    Args:
        folders: the folders to search, in this order.
        name: only its last part is searched for.
        loader: the loader for Python files.
    """
    loaders = (
        (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
        (loader, importlib.machinery.SOURCE_SUFFIXES),
    )
    portions: list[str] = []
    for folder in folders:
        spec = importlib.machinery.FileFinder(folder, *loaders).find_spec(name)
        if spec and spec.loader:
            return spec
        portions += (spec and spec.submodule_search_locations) or []
    if not portions:
        return None
    package = ModuleSpec(name, None, is_package=True)
    package.submodule_search_locations = portions
    return package


def find_neighbour(
    first: Collection[str], last: Collection[str], name: str, loader: type[FromSource] = FromSource
) -> ModuleSpec | None:
    """Return the user's module that a name in the user's file means; None where it means another module.

    A file or a package has priority over installed modules. A folder without `__init__.py`, and modules in the folders `last`, are used
    only where nothing with that name is installed. Both rules are those of Python's own path.

    Args:
        first: the folders with priority over installed modules.
        last: the folders after installed modules.
        name: its last part, without dots, is the imported name.
        loader: the loader for Python files.
    """
    top = name.rpartition(".")[2]
    if top in sys.builtin_module_names:
        return None
    spec = find_in(first, name, loader)
    if spec and spec.loader:
        return spec
    return None if is_installed(top, last) else spec or find_in(last, name, loader)


def is_installed(top: str, besides: Collection[str] = ()) -> bool:
    """Whether Python itself finds a file for a name, outside of the folders `besides`."""
    if top in sys.stdlib_module_names:
        return True
    specs = (finder.find_spec(top, None) for finder in sys.meta_path)
    origins = (Path(spec.origin) for spec in specs if spec and spec.loader and spec.origin)
    return any(not any(origin.is_relative_to(folder) for folder in besides) for origin in origins)
