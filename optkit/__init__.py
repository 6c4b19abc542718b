"""optkit: export, quantize, verify, measure and package a PyTorch model.

Each command of `optkit` is a function here, with the options as arguments. It prints nothing and returns the record that the command prints.
Records have a display for notebooks, for rich and for print(); `record.to_dict()` returns plain values:

    import optkit

    optkit.export_onnx(model, "model.onnx", inputs={"image": "float32[batch,3,224,224]"}, dims={"batch": (1, 8, 64)})
    optkit.quantize("model.onnx", "int8.onnx", calibration=loader, to_feed=lambda batch: batch[0], evaluate=accuracy, max_drop=0.01)
    print(optkit.bench(["model.onnx", "int8.onnx", model], batches=[1, 8]))
    optkit.package_triton("int8.onnx", "model_repository", name="classifier")

Names are imported on first use: `import optkit` does not import torch, onnx or numpy.
"""

from optkit._version import __version__

TYPE_CHECKING = False  # as in typing; importing typing takes half as long as starting Python
if TYPE_CHECKING:
    from optkit.api.ab import ab as ab
    from optkit.api.bench import bench as bench
    from optkit.api.bench import self_test as self_test
    from optkit.api.build_engine import build_engine as build_engine
    from optkit.api.check import check as check
    from optkit.api.compare import compare as compare
    from optkit.api.compile import compile_aoti as compile_aoti
    from optkit.api.export import export_onnx as export_onnx
    from optkit.api.export import export_torchscript as export_torchscript
    from optkit.api.inspect import doctor as doctor
    from optkit.api.inspect import inspect as inspect
    from optkit.api.lint import lint as lint
    from optkit.api.load_test import load_test as load_test
    from optkit.api.migrate import migrate as migrate
    from optkit.api.open import open as open
    from optkit.api.package import package_torchserve as package_torchserve
    from optkit.api.package import package_triton as package_triton
    from optkit.api.package import package_triton_python as package_triton_python
    from optkit.api.quantize import convert_fp16 as convert_fp16
    from optkit.api.quantize import quantize as quantize
    from optkit.api.quantize import quantize_torch as quantize_torch
    from optkit.api.run import Recipe as Recipe
    from optkit.api.run import plan as plan
    from optkit.api.run import run as run
    from optkit.api.smoke import smoke as smoke
    from optkit.api.verify import diff as diff
    from optkit.api.verify import verify as verify
    from optkit.artifact import Artifact as Artifact
    from optkit.artifact import Passport as Passport
    from optkit.artifact.tensors import DimRange as DimRange
    from optkit.artifact.tensors import TensorSpec as TensorSpec
    from optkit.errors import ArtifactError as ArtifactError
    from optkit.errors import FeedError as FeedError
    from optkit.errors import MissingDependency as MissingDependency
    from optkit.errors import ModelError as ModelError
    from optkit.errors import OptkitError as OptkitError
    from optkit.errors import OutputError as OutputError
    from optkit.errors import RecipeError as RecipeError
    from optkit.errors import RunnerError as RunnerError
    from optkit.errors import StageError as StageError

_MODULES = {
    "api.ab": ("ab",),
    "api.bench": ("bench", "self_test"),
    "api.build_engine": ("build_engine",),
    "api.check": ("check",),
    "api.compare": ("compare",),
    "api.compile": ("compile_aoti",),
    "api.export": ("export_onnx", "export_torchscript"),
    "api.inspect": ("doctor", "inspect"),
    "api.lint": ("lint",),
    "api.load_test": ("load_test",),
    "api.migrate": ("migrate",),
    "api.open": ("open",),
    "api.package": ("package_torchserve", "package_triton", "package_triton_python"),
    "api.quantize": ("convert_fp16", "quantize", "quantize_torch"),
    "api.run": ("Recipe", "plan", "run"),
    "api.smoke": ("smoke",),
    "api.verify": ("diff", "verify"),
    "artifact": ("Artifact", "Passport"),
    "artifact.tensors": ("DimRange", "TensorSpec"),
    "errors": (
        "ArtifactError",
        "FeedError",
        "MissingDependency",
        "ModelError",
        "OptkitError",
        "OutputError",
        "RecipeError",
        "RunnerError",
        "StageError",
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> object:
    """Import a name on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'optkit' has no attribute {name!r}")
    import importlib

    from optkit.api.showing import show_records

    show_records()
    found: object = getattr(importlib.import_module(f"optkit.{_HOME[name]}"), name)
    if callable(found) and not isinstance(found, type):
        from optkit.api.wording import for_python

        found = for_python(found)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
