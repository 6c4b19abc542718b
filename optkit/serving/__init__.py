"""Packaging for a server: a Triton model repository, or a TorchServe archive with its configuration."""

from optkit.serving.golden import Golden, make_golden
from optkit.serving.package import Packaged
from optkit.serving.settings import AnyServing, ArtifactServing, TorchServeServing, TritonPythonServing, TritonServing
from optkit.serving.torchserve.package import package_torchserve
from optkit.serving.triton.package import package_triton
from optkit.serving.triton.python_backend.package import package_function
from optkit.serving.triton_fields import Accelerator, Instances, Optimization, Priorities, QueuePolicy, VersionPolicy

__all__ = [
    "Accelerator",
    "AnyServing",
    "ArtifactServing",
    "Golden",
    "Instances",
    "Optimization",
    "Packaged",
    "Priorities",
    "QueuePolicy",
    "TorchServeServing",
    "TritonPythonServing",
    "TritonServing",
    "VersionPolicy",
    "make_golden",
    "package_function",
    "package_torchserve",
    "package_triton",
]
