"""Models for the real servers that several tests serve, and one Triton for all tests of a worker."""

import contextlib

import numpy as np

from optkit import onnx_file
from optkit.artifact.findings import BatchIndependence
from optkit.serving import TritonServing, VersionPolicy, package_triton
from optkit.serving.triton.server import TritonServer

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


class SharedTriton:
    """One server under explicit model control, which loads what a test serves and unloads it afterwards."""

    def __init__(self, install, folder):
        import tritonclient.grpc as grpc

        self.folder = folder
        self.server = TritonServer(install, folder, models=(), limit_s=120).__enter__()
        self.client = grpc.InferenceServerClient(self.server.grpc)

    @contextlib.contextmanager
    def serve(self, repository):
        """Yield the server with every model of a repository; their names must differ from those that are loaded."""
        models = sorted(config.parent for config in repository.glob("*/config.pbtxt"))
        for model in models:
            (self.folder / model.name).symlink_to(model)
        try:
            for model in models:
                self.client.load_model(model.name, client_timeout=120)
            yield self.server
        finally:
            for model in models:
                self.client.unload_model(model.name, client_timeout=60)
                (self.folder / model.name).unlink()

    def stop(self):
        self.client.close()
        self.server.__exit__()
