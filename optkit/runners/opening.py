"""The runner for each format."""

from optkit.artifact import Artifact, Format
from optkit.runners.base import Device, Runner


def open_runner(
    artifact: Artifact,
    device: Device = Device.CPU,
    threads: int | None = None,
    streams: int = 1,
    cuda_graph: bool = False,
) -> Runner:
    """Return the runner for an artifact's format; `with` loads the artifact.

    Args:
        artifact: the artifact to run.
        device: the device.
        threads: threads of one inference on a CPU; None uses the runtime's default.
        streams: the number of CUDA streams for concurrent calls.
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
        case Format.AOTI:
            from optkit.runners.aoti import AotiRunner

            return AotiRunner(artifact, device, threads, streams, cuda_graph)
        case Format.TENSORRT:
            from optkit.runners.tensorrt import TensorRtRunner

            return TensorRtRunner(artifact, device, threads, streams, cuda_graph)
        case Format.ONNX:
            from optkit.runners.onnxruntime import OnnxRuntimeRunner

            return OnnxRuntimeRunner(artifact, device, threads, streams, cuda_graph)


def why_not_runnable(artifact: Artifact) -> str | None:
    """Return the reason why an artifact cannot run on this machine; None where no reason is known.

    Only engines and compiled packages depend on a machine and a release. For other formats, opening the artifact raises the error.
    """
    if artifact.format is Format.AOTI:
        from optkit.runners.aoti import why_package_not_runnable

        return why_package_not_runnable(artifact)
    if artifact.format is not Format.TENSORRT:
        return None
    from optkit.runners.tensorrt import why_engine_not_runnable

    return why_engine_not_runnable(artifact)
