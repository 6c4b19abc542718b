"""Models for the real servers that several tests serve."""

import numpy as np

from optkit import onnx_file
from optkit.artifact.findings import BatchIndependence
from optkit.serving import TritonServing, VersionPolicy, package_triton

PROVEN = BatchIndependence(dim="batch")


def scaled(artifact, factor, folder):
    """Return the model with its weights multiplied."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(artifact.path))
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array((values * factor).astype(np.float32), tensor.name))
    path = folder / f"x{factor:g}.onnx"
    onnx.save(model, str(path))
    return onnx_file.describe(path, artifact.dims)


def package_versions(versions, repository):
    """Package artifacts of one contract as the versions of `model`, all loaded."""
    for version, artifact in versions.items():
        settings = TritonServing(version=int(version), version_policy=VersionPolicy(all=True), warmup=False)
        package_triton(artifact, repository, settings, name="model", independence=PROVEN, sample=None)
    return versions
