"""Packaging for a server: a Triton model repository, and a TorchServe archive with its configuration."""

from optkit.serving.packaged import Packaged
from optkit.serving.settings import AnyServing, Instances, TorchServeServing, TritonServing, VersionPolicy
from optkit.serving.torchserve import package_torchserve
from optkit.serving.triton import package_triton

__all__ = [
    "AnyServing",
    "Instances",
    "Packaged",
    "TorchServeServing",
    "TritonServing",
    "VersionPolicy",
    "package_torchserve",
    "package_triton",
]
