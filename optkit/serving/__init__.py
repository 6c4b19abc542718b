"""Packaging for a server: a Triton model repository, and a TorchServe archive with its configuration."""

from optkit.serving.golden import Golden, make_golden
from optkit.serving.packaged import Packaged
from optkit.serving.settings import AnyServing, ArtifactServing, TorchServeServing, TritonPythonServing, TritonServing
from optkit.serving.torchserve import package_torchserve
from optkit.serving.triton import package_triton
from optkit.serving.triton_function import package_function
from optkit.serving.triton_settings import (
    Accelerator,
    Instances,
    Optimization,
    Priorities,
    QueuePolicy,
    VersionPolicy,
)

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
