"""Optional packages: import a module, or raise an error with the command that installs it."""

import importlib
import importlib.metadata
import importlib.util
from types import ModuleType

from optkit.errors import MissingDependency


def require(module: str, extra: str | None = None) -> ModuleType:
    """Import a module that only some commands need.

    Args:
        module: the import name, such as `"tensorrt"`.
        extra: the extra of optkit that installs it; None where no extra does.

    Raises:
        MissingDependency: it is not installed; the message has the command that installs it.
    """
    if not installed(module):
        raise MissingDependency(missing(module, extra))
    return importlib.import_module(module)


def installed(module: str) -> bool:
    """Whether a module can be found; imports neither it nor anything heavy."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def missing(module: str, extra: str | None = None) -> str:
    """Return the sentence for a module that is not installed."""
    extra = extra or _EXTRAS.get(module)
    return f"{module} is not installed. Run: pip install '{f'optkit[{extra}]' if extra else module}'"


def version(*distributions: str) -> str | None:
    """Return the version of the first of these distributions that is installed, without importing it."""
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


_EXTRAS = {
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "tensorrt_rtx_bindings": "tensorrt-rtx",
    "pycuda": "tensorrt",
}  # module -> extra of optkit

# The libraries whose version can change the content of an artifact.
_BUILDERS: dict[str, tuple[str, ...]] = {
    "torch": ("torch",),
    "onnx": ("onnx",),
    "onnxscript": ("onnxscript",),
    "onnx_ir": ("onnx-ir",),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
    "numpy": ("numpy",),
}


def built_with() -> dict[str, str]:
    """Return name -> version, for optkit, for Python and for the libraries that make artifacts."""
    import platform

    from optkit._version import __version__

    found = {library: version(*names) for library, names in _BUILDERS.items()}
    return {"optkit": __version__, "python": platform.python_version()} | {
        library: text for library, text in found.items() if text
    }
