"""The import of the user's files: they see their neighbours first, and libraries do not see them.

The files of a folder are in `sys.modules` below a private package for that folder, as `optkit_user_1a2b3c4d.model`. Each file has its own
`__import__`, which searches its neighbours first, at any time and in any thread. Nothing is added to `sys.path`, so libraries find
installed modules and never a file of the user, and two folders may both have a `utils.py`.

Imports by plain name through a library (`importlib.import_module("models")`, or a pickle of `models.Net`) work while optkit calls the
user's code: see `running`.
"""

import builtins
import contextlib
import hashlib
import importlib
import importlib.abc
import importlib.util
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from optkit.user_code import watch
from optkit.user_code.lines import is_users
from optkit.user_code.neighbours import FromSource, find_in, find_neighbour, is_installed

_PREFIX = "optkit_user_"
# Modules that import a module by name for their caller.
_FOR_OTHERS = (
    "_frozen_importlib",
    "importlib",
    "pickle",
    "pkgutil",
    "torch.serialization",
    "joblib",
    "cloudpickle",
    "dill",
)
_CHANGING = threading.Lock()


class UserFolder:
    """A folder of the user; its files import each other before anything else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package = _PREFIX + hashlib.sha256(str(folder).encode()).hexdigest()[:8]
        self.files: dict[str, Path] = {}  # module -> its file, where the file was given
        self.before: list[str] = []  # folders that the user's code added at the start of `sys.path`
        self.after: list[str] = []  # folders that it added at the end
        self.known_path: Sequence[str] = tuple(sys.path)  # without the folders that the user's code added
        self._others: set[str] = (
            set()
        )  # names of other modules; cached, so that an import in `forward` does not search the folder
        self._code: dict[str, str] = {}  # module -> the hash of its code when it was imported
        self.builtins = vars(builtins) | {"__import__": self._import}

    def load(self, name: str, file: Path | None, code: str) -> ModuleType:
        """Import a module once for each state of its code.

        Args:
            name: the module name for the folder's files.
            file: its file, if given.
            code: the hash of the module and all its imports from the folder.
        """
        full = f"{self.package}.{name}"
        loaded = [key for key in list(sys.modules) if key.startswith(f"{self.package}.")]
        loaders = [getattr(getattr(sys.modules[key], "__spec__", None), "loader", None) for key in loaded]
        changed = any(isinstance(loader, FromSource) and not loader.is_current() for loader in loaders)
        changed = changed or (full in sys.modules and self._code.get(full, code) != code)
        if changed or watch.has_changed(self.package):
            for key in loaded:  # all, because each may have objects of another one
                sys.modules.pop(key, None)
            watch.forget(self.package)
        if self.package not in sys.modules:
            package = ModuleSpec(self.package, None, is_package=True)
            package.submodule_search_locations = [str(self.folder)]
            sys.modules[self.package] = importlib.util.module_from_spec(package)
        if file:
            self.files[full] = file
        self._others.clear()
        with _running(self, self.package):
            module = importlib.import_module(full)
        self._code[full] = code
        return module

    def find(self, name: str, path: Sequence[str]) -> ModuleSpec | None:
        """Return the module of a full name; `path` is the search path of its package."""
        if file := self.files.get(name):
            is_package = [str(file.parent)] if file.name == "__init__.py" else None
            return importlib.util.spec_from_file_location(
                name, file, loader=_Private(name, str(file)), submodule_search_locations=is_package
            )
        if name.rpartition(".")[0] != self.package:
            return find_in(path, name, _Private)
        self.learn_path()
        return find_neighbour([*self.before, str(self.folder)], self.after, name, _Private)

    def owns(self, top: str, importer: str) -> bool:
        """Whether a name in a file of the folder means one of its neighbours."""
        full = f"{self.package}.{top}"
        if top in self._others:
            return False
        if full == importer:  # a file with the name of a library imports this library
            return not is_installed(top, [str(self.folder)])
        if full in sys.modules or self.find(full, ()):
            return True
        self._others.add(top)
        return False

    def learn_path(self) -> None:
        """Store the folders that the user's code added to `sys.path`."""
        path = list(sys.path)
        start = next((i for i, entry in enumerate(path) if entry in self.known_path), len(path))
        for new, kept in ((path[:start], self.before), (path[start:], self.after)):
            entries = (str(Path(entry).absolute()) for entry in new if entry not in self.known_path and is_users(entry))
            kept += [entry for entry in entries if entry not in (*self.before, *self.after)]

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Replace `__import__` in the folder's files."""
        top = name.partition(".")[0]
        from_c = isinstance(fromlist, list) and not fromlist  # PyImport_Import, which reads its result from sys.modules
        importer = (globals or {}).get("__name__", "")
        if not level and (from_c or not self.owns(top, importer)):
            if top not in sys.stdlib_module_names:
                watch.note_package(self.package, top)
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        try:
            with _finding():
                full = name if level else f"{self.package}.{name}"
                module = builtins.__import__(full, globals, locals, fromlist or (), level)
        except ModuleNotFoundError as e:
            e.name = (e.name or "").removeprefix(f"{self.package}.")
            e.msg = e.msg.replace(f"{self.package}.", "")
            raise
        return module if fromlist or level else sys.modules[f"{self.package}.{top}"]


_FOLDERS: dict[str, UserFolder] = {}  # by the name of its package


def user_folder(folder: Path) -> UserFolder:
    """Return the shared object for a folder."""
    found = UserFolder(folder)
    return _FOLDERS.setdefault(found.package, found)


class _Private(FromSource):
    """Runs a file with the `__import__` of its folder."""

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = _FOLDERS[self.name.partition(".")[0]].builtins
        with watch.recording() as seen:
            super().exec_module(module)
        watch.at_import[self.path] = seen


class _Same(importlib.abc.Loader):
    """Provides a loaded module under a second name."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, _spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the user's modules below their packages, and by their plain names for imports by the user's code."""

    def __init__(self) -> None:
        self.second_names: list[str] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        folder = _FOLDERS.get(fullname.partition(".")[0])
        if folder:
            if spec := folder.find(fullname, path or ()):
                return spec
            # Raise now: Python's own finders would search the folder too, and cache it.
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        if not (meant := _meant(fullname)):
            return None
        module = importlib.import_module(meant)
        self.second_names.append(fullname)
        return ModuleSpec(fullname, _Same(module), is_package=hasattr(module, "__path__"))


def _meant(name: str) -> str | None:
    """Return the full name of the user's module for a plain name; None where it is not the user's module."""
    parent, _, child = name.rpartition(".")
    if parent:
        full = getattr(sys.modules.get(parent), "__name__", "")
        return f"{full}.{child}" if full.partition(".")[0] in _FOLDERS else None
    frame = sys._getframe(1)
    while frame.f_back and _imports_for_others(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    asking = str(frame.f_globals.get("__name__", ""))
    folder = _FOLDERS.get(asking.partition(".")[0])
    return f"{folder.package}.{name}" if folder and folder.owns(name, asking) else None


def _imports_for_others(module: str) -> bool:
    return module == __name__ or any(module == name or module.startswith(f"{name}.") for name in _FOR_OTHERS)


@contextlib.contextmanager
def _finding() -> Iterator[None]:
    """Let the import system find the user's modules inside the block."""
    finder = _Finder()
    with _CHANGING:  # a new list, so that other threads can still iterate over the old one
        sys.meta_path = [finder, *sys.meta_path]
    try:
        yield
    finally:
        with _CHANGING:
            sys.meta_path = [other for other in sys.meta_path if other is not finder]
        for name in finder.second_names:
            sys.modules.pop(name, None)


@contextlib.contextmanager
def _running(folder: UserFolder | None, owner: str) -> Iterator[None]:
    before = tuple(sys.path)
    if folder:
        folder.known_path = before
    try:
        with _finding(), watch.watching(owner):
            yield
    finally:
        if folder:
            folder.learn_path()
        for entry in [entry for entry in sys.path if entry not in before and is_users(entry)]:
            sys.path.remove(entry)
            sys.path_importer_cache.pop(entry, None)


def running(code: object) -> contextlib.AbstractContextManager[None]:
    """Return a context for a call of the user's code, in which imports by plain name through a library work.

    The code's own imports work without it; imports through a library do not, such as the classes of a pickle. Folders that the code adds
    to `sys.path` are removed afterwards, and searched for its later imports.

    What the code reads is recorded; see `watch`.

    Args:
        code: the function, class or object from `load`.
    """
    return _running(_FOLDERS.get(owner_of(code)), owner_of(code))


def owner_of(code: object) -> str:
    """Return under which name `watch` records what an object's code reads: its folder's package, or the module that defines it."""
    return str(getattr(code, "__module__", "")).partition(".")[0]
