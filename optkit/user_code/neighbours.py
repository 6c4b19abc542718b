"""Which file beside the user's own an `import` means, found without running anything."""

import hashlib
import importlib.machinery
import sys
from collections.abc import Collection, Iterable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType


class FromSource(importlib.machinery.SourceFileLoader):
    """Compiles the file at each import, whatever bytecode lies beside it, and remembers what it read.

    Python takes cached bytecode for a source of the same size and the same second, so a file that was rewritten at once would run as
    it was before, under the hash of what it is now. No `__pycache__` is left in the folder either.
    """

    def get_code(self, fullname: str) -> CodeType:
        """Return the code of the file as it is now."""
        path = self.get_filename(fullname)
        source = self.get_data(path)
        self._read = hashlib.sha256(source).digest()
        return self.source_to_code(source, path)

    def is_current(self) -> bool:
        """Whether the file still holds what was imported."""
        try:
            return hashlib.sha256(self.get_data(self.path)).digest() == self._read
        except OSError:
            return False


def find_in(folders: Iterable[str], name: str, loader: type[FromSource] = FromSource) -> ModuleSpec | None:
    """Return the module of a name in the first folder that has a file for it, else the folders of that name as one package.

    Args:
        folders: where to look, in this order.
        name: only its last part is looked for.
        loader: what imports a Python file.
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
    """Return the user's own module that a file of theirs means by a name; None where it means another.

    A file or a package goes before what is installed; a folder without `__init__.py`, which may hold anything, and what lies in the
    folders that go last only stand in where nothing is installed under that name: both as on Python's own path.

    Args:
        first: the folders that go before what is installed.
        last: the folders that go after it.
        name: its last part is what the file imports, a name without dots.
        loader: what imports a Python file.
    """
    top = name.rpartition(".")[2]
    if top in sys.builtin_module_names:
        return None
    spec = find_in(first, name, loader)
    if spec and spec.loader:
        return spec
    return None if is_installed(top, last) else spec or find_in(last, name, loader)


def is_installed(top: str, besides: Collection[str] = ()) -> bool:
    """Whether Python itself finds a file for a name, elsewhere than in some folders."""
    if top in sys.stdlib_module_names:
        return True
    specs = (finder.find_spec(top, None) for finder in sys.meta_path)
    origins = (Path(spec.origin) for spec in specs if spec and spec.loader and spec.origin)
    return any(not any(origin.is_relative_to(folder) for folder in besides) for origin in origins)
