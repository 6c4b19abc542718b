"""Optional packages: import a module, or raise an error with the command to install it."""

import importlib
import importlib.metadata
import importlib.util
from types import ModuleType

from optkit.errors import MissingDependency


def require(module: str, extra: str | None = None) -> ModuleType:
    """Import an optional module.

    Args:
        module: import name, such as `"tensorrt"`.
        extra: extra of optkit that installs the module; None if no extra does.

    Raises:
        MissingDependency: the module is not installed; the message has the command to install it.
    """
    if not installed(module):
        raise MissingDependency(missing(module, extra))
    return importlib.import_module(module)


def installed(module: str) -> bool:
    """Whether a module is installed; does not import it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def missing(module: str, extra: str | None = None) -> str:
    """Return the error message for a module that is not installed."""
    extra = extra or _EXTRAS.get(module)
    return f"{module} is not installed. Run: pip install '{f'optkit[{extra}]' if extra else module}'"


def version(*distributions: str) -> str | None:
    """Return the version of the first installed distribution of these, without importing it; None if none is installed."""
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

# Libraries whose version can change the content of an artifact.
_BUILDERS: dict[str, tuple[str, ...]] = {
    "torch": ("torch",),
    "onnx": ("onnx",),
    "onnxscript": ("onnxscript",),
    "onnx_ir": ("onnx-ir",),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
    "numpy": ("numpy",),
}


def built_with() -> dict[str, str]:
    """Return name -> installed version, for optkit, Python and the libraries that make artifacts."""
    import platform

    from optkit._version import __version__

    found = {library: version(*names) for library, names in _BUILDERS.items()}
    return {"optkit": __version__, "python": platform.python_version()} | {
        library: text for library, text in found.items() if text
    }
