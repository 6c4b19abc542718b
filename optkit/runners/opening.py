"""Which runner runs which format."""

from optkit.artifact import Artifact, Format
from optkit.runners.base import Device, Runner


def open_runner(
    artifact: Artifact,
    device: Device = Device.CPU,
    threads: int | None = None,
    streams: int = 1,
    cuda_graph: bool = False,
) -> Runner:
    """Return the runner of an artifact's format, not yet loaded: use it in `with`.

    Args:
        artifact: what to run.
        device: where.
        threads: of one inference on a CPU; None takes the runtime's default.
        streams: CUDA streams that calls may lie on side by side.
        cuda_graph: whether bound calls replay a captured CUDA graph.
    """
    match artifact.format:
        case Format.PYTORCH:
            from optkit.runners.pytorch import EagerRunner

            return EagerRunner(artifact, device, threads, streams, cuda_graph)
        case Format.TORCHSCRIPT:
            from optkit.runners.pytorch import TorchScriptRunner

            return TorchScriptRunner(artifact, device, threads, streams, cuda_graph)
        case Format.EXPORTED_PROGRAM:
            from optkit.runners.pytorch import ExportedProgramRunner

            return ExportedProgramRunner(artifact, device, threads, streams, cuda_graph)
        case Format.TENSORRT:
            from optkit.runners.tensorrt import TensorRtRunner

            return TensorRtRunner(artifact, device, threads, streams, cuda_graph)
        case Format.ONNX:
            from optkit.runners.onnxruntime import OnnxRuntimeRunner

            return OnnxRuntimeRunner(artifact, device, threads, streams, cuda_graph)


def obstacle(artifact: Artifact) -> str | None:
    """Return why an artifact cannot be run on this machine at all; None where nothing is known to be in the way.

    Only engines are tied to a GPU and a release; everything else that cannot be run is an error when it is opened.
    """
    if artifact.format is not Format.TENSORRT:
        return None
    from optkit.runners.tensorrt import engine_obstacle

    return engine_obstacle(artifact)
