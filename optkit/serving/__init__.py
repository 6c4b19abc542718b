"""Packaging for a server: a Triton model repository, and a TorchServe archive with its configuration."""

from optkit.serving.golden import Golden, make_golden
from optkit.serving.packaged import Packaged
from optkit.serving.settings import AnyServing, TorchServeServing, TritonServing
from optkit.serving.torchserve import package_torchserve
from optkit.serving.triton import package_triton
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
    "Golden",
    "Instances",
    "Optimization",
    "Packaged",
    "Priorities",
    "QueuePolicy",
    "TorchServeServing",
    "TritonServing",
    "VersionPolicy",
    "make_golden",
    "package_torchserve",
    "package_triton",
]
