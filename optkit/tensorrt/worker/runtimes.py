"""The facts of this machine and this interpreter: the GPU by its driver, TensorRT and TensorRT-RTX."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
from typing import Any

from .protocol import FaultError, Json

MODULES = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}


def load_libcuda() -> ctypes.CDLL:
    """Load the library of NVIDIA's driver.

    Raises:
        OSError: it is not installed.
    """
    return ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")


def find_gpu() -> tuple[Json | None, str]:
    """Return the driver's facts of the first GPU, or None and the reason why there is none."""
    try:
        cuda = load_libcuda()
    except OSError:
        return None, "no NVIDIA driver here (libcuda cannot be loaded)"
    code = cuda.cuInit(0)
    if code:
        return None, f"the NVIDIA driver finds no usable GPU here (cuInit gives error {code})"
    device, version, major, minor = (ctypes.c_int() for _ in range(4))
    name = ctypes.create_string_buffer(256)
    if cuda.cuDeviceGet(ctypes.byref(device), 0):
        return None, "the NVIDIA driver shows no GPU here"
    cuda.cuDeviceGetName(name, 256, device)
    cuda.cuDriverGetVersion(ctypes.byref(version))
    cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
    return {
        "name": name.value.decode(),
        "sm": f"sm{major.value}{minor.value}",
        "driver": f"{version.value // 1000}.{version.value % 1000 // 10}",
    }, ""


def load_runtime(requested: str, gpu: Json | None, no_gpu: str) -> tuple[str, Any]:
    """Import the requested runtime and return its name and module; `auto` means TensorRT with a GPU, else TensorRT-RTX.

    Raises:
        FaultError: it is not installed, or cannot work here.
    """
    if requested == "auto":
        found = [name for name in MODULES if _import(name) is not None]
        if not found:
            raise FaultError(
                f"neither tensorrt nor tensorrt-rtx is installed for {sys.executable}. Run: pip install 'optkit[tensorrt-rtx]' to build without a "
                "GPU, or 'optkit[tensorrt]'; or name the interpreter that has it with --tensorrt-python."
            )
        on_gpu = "tensorrt" in found and gpu
        requested = "tensorrt-rtx" if "tensorrt-rtx" in found and not on_gpu else "tensorrt"
    module = _import(requested)
    if module is None:
        raise FaultError(
            f"{requested} is not installed for {sys.executable}. Run: pip install 'optkit[{requested}]', or name the interpreter that has it with "
            "--tensorrt-python."
        )
    if requested == "tensorrt" and gpu is None:
        raise FaultError(
            f"tensorrt {module.__version__} needs a GPU to build and to run: {no_gpu}. Use --runtime tensorrt-rtx, which builds without one."
        )
    return requested, module


def _import(runtime: str) -> Any:
    """Return the module of a runtime, or None where it is not installed.

    Raises:
        FaultError: it is installed, but one of its own dependencies is not.
    """
    for name in MODULES[runtime]:
        try:
            return importlib.import_module(name)
        except ImportError as e:
            if e.name != name:
                raise FaultError(f"{name} cannot be imported by {sys.executable}: {e}") from e
    return None


def title(trt: Any) -> str:
    """Return the name and release of a runtime in NVIDIA's spelling."""
    return "{} {}".format("TensorRT" if trt.__name__ == "tensorrt" else "TensorRT-RTX", trt.__version__)


def facts(job: Json) -> Json:
    """Return the GPU, the runtimes and pycuda; without `versions` only the GPU, which does not import TensorRT."""
    gpu, no_gpu = find_gpu()
    if not job["versions"]:
        return {"gpu": gpu, "no_gpu": no_gpu}
    versions = {}
    for name in MODULES:
        try:
            module = _import(name)
        except FaultError:
            module = None
        versions[name] = module.__version__ if module else None
    return {
        "gpu": gpu,
        "no_gpu": no_gpu,
        "versions": versions,
        "pycuda": importlib.util.find_spec("pycuda") is not None,
    }
