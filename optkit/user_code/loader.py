"""Files of a folder imported as their source says, whatever bytecode lies beside them, and anew once one of them has changed.

Python takes cached bytecode for a source of the same size and the same second, so a file that was rewritten at once would run as it was
before, under the hash of what it is now. No `__pycache__` is left in the folder either.
"""

import functools
import hashlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType


class FromSource(importlib.machinery.SourceFileLoader):
    """Compiles the file at each import, and remembers what it read."""

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


_LOADERS = (
    (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
    (FromSource, importlib.machinery.SOURCE_SUFFIXES),
)


@functools.cache
def import_from_source(folder: Path, belongs: Callable[[str], bool]) -> None:
    """Import what lies in a folder or below it from its source from now on, where `belongs` says so of a path."""
    files = importlib.machinery.FileFinder.path_hook(*_LOADERS)

    def hook(path: str) -> importlib.abc.PathEntryFinder:
        if not (Path(path).is_relative_to(folder) and belongs(path)):
            raise ImportError(path)
        return files(path)

    sys.path_hooks.insert(0, hook)
    for known in [path for path in sys.path_importer_cache if Path(path).is_relative_to(folder)]:
        del sys.path_importer_cache[known]


def forget_changed(folder: Path) -> None:
    """Forget the modules of a folder when the file of one has changed: the others may hold what they took from it."""
    found = {
        name: loader for name in sys.modules if (loader := _loader(name)) and Path(loader.path).is_relative_to(folder)
    }
    if not all(loader.is_current() for loader in found.values()):
        for name in found:
            del sys.modules[name]


def _loader(name: str) -> FromSource | None:
    loader = getattr(getattr(sys.modules[name], "__spec__", None), "loader", None)
    return loader if isinstance(loader, FromSource) else None
