"""The backends of the GPU benchmark: eager PyTorch, TorchScript, CUDA graphs, torch.compile, ONNX Runtime, TensorRT, each on one case.

Needs torch, onnx and numpy. Uses onnxruntime with CUDA, tensorrt or tensorrt_rtx with pycuda if they are installed. From optkit, only the
TensorRT worker is imported, which needs no other package of optkit.
"""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from models import Model

WORKER = Path(__file__).resolve().parents[2] / "optkit" / "tensorrt" / "worker"
MIN_SECONDS, MIN_CALLS, WARMUP_CALLS = 0.5, 30, 10
LARGEST_BATCH = 64  # of an engine's profile


class NotRunError(Exception):
    """Why a backend is not run here."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One model in one precision at one batch size; `reference` is the outputs of eager FP32."""

    model: Model
    precision: str
    batch: int
    device: torch.device
    folder: Path
    reference: np.ndarray
    tensorrt_python: str = sys.executable

    def module(self) -> torch.nn.Module:
        """Return the module on the device, in its precision."""
        module = self.model.build().to(self.device)
        return module.half() if self.precision == "fp16" else module

    def inputs(self) -> tuple[torch.Tensor, ...]:
        """Return the inputs on the device; real numbers in the precision of the module."""
        found = (x.to(self.device) for x in self.model.inputs(self.batch))
        return tuple(x.half() if self.precision == "fp16" and x.is_floating_point() else x for x in found)


Ready = tuple[Callable[[], Any], Callable[[], np.ndarray]]  # one inference until its end; returns the outputs


# ---------------------------------------------------------------------------------------------- PyTorch


def _awaited(run: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    if device.type != "cuda":
        return run

    def call() -> None:
        run()
        torch.cuda.synchronize()

    return call


def _ready(run: Callable[[], torch.Tensor], case: Case) -> Ready:
    return _awaited(run, case.device), lambda: run().float().cpu().numpy()


def eager(case: Case) -> Ready:
    """PyTorch as it is."""
    module, inputs = case.module(), case.inputs()
    return _ready(lambda: module(*inputs), case)


def torchscript(case: Case) -> Ready:
    """A trace, frozen."""
    inputs = case.inputs()
    traced = torch.jit.freeze(torch.jit.trace(case.module(), inputs, check_trace=False))
    return _ready(lambda: traced(*inputs), case)


def cuda_graphs(case: Case) -> Ready:
    """Eager PyTorch, captured once and replayed."""
    if case.device.type != "cuda":
        raise NotRunError("CUDA graphs need a GPU")
    module, inputs = case.module(), case.inputs()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            module(*inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = module(*inputs)

    def replay() -> torch.Tensor:
        graph.replay()
        return output

    return _ready(replay, case)


def compiled(case: Case) -> Ready:
    """torch.compile in its mode for few launches."""
    if case.device.type != "cuda":
        raise NotRunError("a rehearsal on the CPU does not compile")
    torch.compiler.reset()
    module, inputs = torch.compile(case.module(), mode="reduce-overhead"), case.inputs()
    return _ready(lambda: module(*inputs), case)


# ---------------------------------------------------------------------------------------------- ONNX


def _onnx(case: Case) -> Path:
    """Export once for each model and precision, with a dynamic batch."""
    path = case.folder / f"{'-'.join(case.model.names)}-{type(case.model.build()).__name__}-{case.precision}.onnx"
    if not path.exists():
        names = list(case.model.names)
        module = case.model.build()
        inputs = tuple(x[:1].repeat(2, *[1] * (x.ndim - 1)) for x in case.model.inputs(1))
        if case.precision == "fp16":  # on the GPU: CPUs lack some kernels of FP16
            module, inputs = (
                module.half().to(case.device),
                tuple((x.half() if x.is_floating_point() else x).to(case.device) for x in inputs),
            )
        torch.onnx.export(
            module, inputs, str(path), input_names=names, output_names=["output"], opset_version=17, dynamo=False,
            dynamic_axes={name: {0: "batch"} for name in (*names, "output")},
        )  # fmt: skip
    return path


def onnxruntime(case: Case) -> Ready:
    """ONNX Runtime on the device, inputs and outputs bound there; never the CPU instead of a GPU."""
    try:
        import onnxruntime as ort
    except ImportError as e:
        raise NotRunError("onnxruntime is not installed") from e
    wanted = "CUDAExecutionProvider" if case.device.type == "cuda" else "CPUExecutionProvider"
    if wanted not in ort.get_available_providers():
        raise NotRunError(f"this onnxruntime {ort.__version__} has no {wanted}: install onnxruntime-gpu")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        str(_onnx(case)), options, providers=[(wanted, {"use_tf32": 0}) if case.device.type == "cuda" else wanted]
    )
    if session.get_providers()[0] != wanted:
        raise NotRunError(f"onnxruntime fell back to {session.get_providers()[0]}")
    binding = session.io_binding()
    kept = []
    for name, x in zip(case.model.names, case.inputs(), strict=True):
        kept.append(ort.OrtValue.ortvalue_from_numpy(x.cpu().numpy(), case.device.type, 0))
        binding.bind_ortvalue_input(name, kept[-1])
    binding.bind_output("output", case.device.type)

    def call() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    def answer() -> np.ndarray:
        call()
        return binding.copy_outputs_to_cpu()[0].astype(np.float32)

    return call, answer


# ---------------------------------------------------------------------------------------------- TensorRT


def tensorrt(case: Case) -> dict[str, Any]:
    """TensorRT or TensorRT-RTX by optkit's worker; calls are timed in that process."""
    return _on_gpu(case, cuda_graph=False)


def tensorrt_graph(case: Case) -> dict[str, Any]:
    """The same, replayed as a CUDA graph."""
    return _on_gpu(case, cuda_graph=True)


def _on_gpu(case: Case, cuda_graph: bool) -> dict[str, Any]:
    if case.device.type != "cuda":
        raise NotRunError("engines run on a GPU only")
    return run_engine(case, cuda_graph)


def run_engine(case: Case, cuda_graph: bool) -> dict[str, Any]:
    """Build the engine of a case if it does not exist yet, and run it in the worker."""
    onnx = _onnx(case)
    plan = onnx.with_suffix(".plan")
    inputs = {name: x.cpu().numpy() for name, x in zip(case.model.names, case.inputs(), strict=True)}
    if not plan.exists():
        _build(case, onnx, plan, inputs)
    folder = case.folder / "feed"
    folder.mkdir(exist_ok=True)
    for i, array in enumerate(inputs.values()):
        np.save(folder / f"input_{i}.npy", array)
    common = {"inputs": list(inputs), "folder": str(folder)}
    rule = {"drop_s": 0.1, "drop_calls": WARMUP_CALLS, "block_s": MIN_SECONDS, "block_calls": MIN_CALLS}
    job = {"task": "run", "runtime": "auto", "plan": str(plan), "streams": 1, "version_compatible": False}
    requests = [{"do": "infer", **common}, {"do": "time", "cuda_graph": cuda_graph, **common, **rule}]
    requests.append({"do": "parts", "cuda_graph": cuda_graph, **common})
    _, _, times, parts = _ask(case, job, requests)
    return {**times, "parts": parts, "answer": np.load(folder / "output_0.npy").astype(np.float32)}


def _build(case: Case, onnx: Path, plan: Path, inputs: dict[str, np.ndarray]) -> None:
    dtypes = {name: str(array.dtype) for name, array in inputs.items()}
    shapes = {name: list(array.shape[1:]) for name, array in inputs.items()}
    job = {
        "task": "build", "runtime": "auto", "onnx": str(onnx), "plan": str(plan),
        "inputs": [{"name": name, "dtype": dtypes[name], "shape": [-1, *shape]} for name, shape in shapes.items()], "outputs": ["output"],
        "profiles": [{name: [[1, *shape], [8, *shape], [LARGEST_BATCH, *shape]] for name, shape in shapes.items()}],
        "targets": [], "types": ["fp16"] if case.precision == "fp16" else [], "ops": [], "workspace_mib": None, "optimization_level": None, "tf32": False,
        "version_compatible": False, "hardware_compatible": None, "refit": False, "strip": False, "timing_cache": None, "timing_cache_default": False, "timing_cache_temporary": "",
    }  # fmt: skip
    _ask(case, job, [])


def _ask(case: Case, job: dict[str, Any], requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Send a job and requests to the worker, and return its results; a failure becomes the reason why it was not run."""
    path = case.folder / "job.json"
    path.write_text(json.dumps(job))
    with (case.folder / "worker.log").open("w+") as printed:  # a file: a pipe that nobody reads may fill
        process = subprocess.Popen(
            [case.tensorrt_python, WORKER, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=printed,
            text=True,
        )
        results = _results(process, requests)
        process.communicate()
        printed.seek(0)
        last = printed.read().strip()[-200:]
    if len(results) < 1 + len(requests):
        raise NotRunError(f"the TensorRT process ended with {process.returncode}: {last}")
    return results


def _results(process: "subprocess.Popen[str]", requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the result of the job and of every request; each request is sent after the reply to the one before."""
    assert process.stdin
    assert process.stdout
    results: list[dict[str, Any]] = []
    for line in process.stdout:
        message = json.loads(line)
        if "fault" in message:
            process.communicate()
            raise NotRunError(message["fault"])
        if "result" in message:
            results.append(message["result"])
            if len(results) > len(requests):
                break
            process.stdin.write(json.dumps(requests[len(results) - 1]) + "\n")
            process.stdin.flush()
    return results


# The order is such that a slow start does not take the time of the others.
BACKENDS: dict[str, Callable[[Case], Any]] = {
    "eager": eager,
    "torchscript": torchscript,
    "cuda-graphs": cuda_graphs,
    "onnxruntime": onnxruntime,
    "tensorrt": tensorrt,
    "tensorrt+graph": tensorrt_graph,
    "compile": compiled,
}
