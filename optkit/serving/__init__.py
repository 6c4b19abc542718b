"""Packages for a server.

settings        the entries under `serve:` in a recipe; `triton_fields` are fields of a Triton configuration
targets         which server's package an artifact goes into; a new server is one more case here
triton/, torchserve/    one package for each server: what it reads, clients, golden samples
packaged        the record that packaging returns; checks that are the same for every server
migrate/        from a TorchServe archive to a Triton repository
clients/        Python clients for packaged models
golden, smoke   golden samples, and the record of their replay
endpoints       models on running servers, to be asked and compared
names, staging, server/ names on a server, files moved into place together, processes of servers
"""

from optkit.serving.golden import Golden, make_golden
from optkit.serving.packaged import Packaged
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
