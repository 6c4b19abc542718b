"""Eager PyTorch, TorchScript, CUDA graphs, torch.compile, ONNX Runtime and TensorRT on one GPU: latency, throughput, parity.

    python benchmarks/gpu/run.py [--models digits,resnet50,minilm] [--batches 1,8,64] [--precisions fp32,fp16] [--json results.json]

Needs torch, onnx and numpy; onnxruntime with CUDA, tensorrt or tensorrt_rtx with pycuda are used where they are there, and what is not there
is told: "not run: reason". Nothing of optkit is imported but its TensorRT worker, which needs no package of optkit's.

What a number is: one call on inputs that lie on the GPU, awaited, without copies between host and device; the median and the 99th percentile of
calls over at least 0.5 s after a warm-up, on the host's clock. Parity is that of the answer with eager FP32 on the same inputs; TF32 is off.
`--device cpu` rehearses the script where no GPU is; its numbers mean nothing.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from models import MODELS, Model

WORKER = Path(__file__).resolve().parents[2] / "optkit" / "tensorrt_worker.py"
MIN_SECONDS, MIN_CALLS, WARMUP_CALLS = 0.5, 30, 10
# How far an answer may be from eager FP32, as optkit's own checks have it.
TOLERANCES = {"fp32": (1e-4, 1e-3, 0.9999), "fp16": (1e-2, 1e-2, 0.999)}


class NotRunError(Exception):
    """Why a backend is not run here."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One model in one precision at one batch size; `reference` is the answer of eager FP32."""

    model: Model
    precision: str
    batch: int
    device: torch.device
    folder: Path
    reference: np.ndarray

    def module(self) -> torch.nn.Module:
        """Return the module on the device, in its precision."""
        module = self.model.build().to(self.device)
        return module.half() if self.precision == "fp16" else module

    def inputs(self) -> tuple[torch.Tensor, ...]:
        """Return the inputs on the device; real numbers in the precision of the module."""
        found = (x.to(self.device) for x in self.model.inputs(self.batch))
        return tuple(x.half() if self.precision == "fp16" and x.is_floating_point() else x for x in found)


Ready = tuple[Callable[[], Any], Callable[[], np.ndarray]]  # one awaited inference; the answer


def main() -> int:
    """Run all, print the table, write the JSON; 1 when an answer is not equal to eager FP32."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS))
    parser.add_argument("--batches", type=lambda text: [int(n) for n in text.split(",")], default=[1, 8, 64])
    parser.add_argument("--precisions", type=lambda text: text.split(","), default=["fp32", "fp16"])
    parser.add_argument("--backends", type=lambda text: text.split(","), default=list(BACKENDS))
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("results") / "gpu.json")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("not run: torch finds no NVIDIA GPU here")
        return 2
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    rows = []
    with tempfile.TemporaryDirectory(prefix="optkit-gpu-") as folder, torch.inference_mode():
        for case, name in _cases(options, Path(folder)):
            for backend in options.backends:
                row = {"model": name, "precision": case.precision, "batch": case.batch, "backend": backend} | _row(
                    BACKENDS[backend], case
                )
                rows.append(row)
                print(_line(row), flush=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": _machine(options.device),
        "settings": {"tf32": False, "min_seconds": MIN_SECONDS},
        "rows": rows,
    }
    options.json.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")
    print(
        f"\n{sum('p50_ms' in row for row in rows)} measured, {sum('not_run' in row for row in rows)} not run; {options.json}"
    )
    return 1 if any(row.get("equal") is False for row in rows) else 0


def _cases(options: argparse.Namespace, folder: Path) -> Iterator[tuple[Case, str]]:
    device = torch.device(options.device)
    print(
        f"{'model':9} {'type':5} {'batch':>5} {'backend':12} {'p50 ms':>9} {'p99 ms':>9} {'samples/s':>10} {'max abs':>9} {'cosine':>9}"
    )
    for name in options.models:
        model = MODELS[name]
        for batch in options.batches:
            right = model.build().to(device)(*(x.to(device) for x in model.inputs(batch)))
            for precision in options.precisions:
                yield Case(model, precision, batch, device, folder, right.float().cpu().numpy()), name


def _row(backend: Callable[[Case], Ready | dict[str, Any]], case: Case) -> dict[str, Any]:
    """Prepare a backend, compare its answer, and time it; what it raises is the reason why it was not run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch: TorchScript is deprecated
            ready = backend(case)
            if isinstance(ready, dict):  # measured in a process of its own
                times, answer, more = ready["times_ms"], ready["answer"], {"parts": ready["parts"]}
            else:
                call, get = ready
                answer, more = get(), {}
                times = _timed(call)
    except NotRunError as e:
        return {"not_run": str(e)}
    except Exception as e:  # one backend of many: the others go on
        return {"not_run": f"{type(e).__name__}: {next(iter(str(e).splitlines()), '')[:200]}"}
    times = sorted(times)
    p50 = statistics.median(times)
    p99 = times[min(len(times) - 1, int(0.99 * len(times)))]
    return {
        "p50_ms": p50,
        "p99_ms": p99,
        "calls": len(times),
        "samples_per_s": case.batch * 1000 / p50,
        **_parity(case, answer),
        **more,
    }


def _parity(case: Case, answer: np.ndarray) -> dict[str, Any]:
    want, got = case.reference.astype(np.float64), answer.astype(np.float64)
    if want.shape != got.shape or not np.isfinite(got).all():
        return {"equal": False, "max_abs": None, "cosine": None}
    difference = np.abs(got - want)
    cosine = float(np.dot(got.ravel(), want.ravel()) / max(np.linalg.norm(got) * np.linalg.norm(want), 1e-30))
    atol, rtol, least = TOLERANCES[case.precision]
    equal = bool((difference <= atol + rtol * np.abs(want)).all() and cosine >= least)
    return {"equal": equal, "max_abs": float(difference.max()), "cosine": cosine}


def _timed(call: Callable[[], Any]) -> list[float]:
    for _ in range(WARMUP_CALLS):
        call()
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < MIN_CALLS or time.perf_counter() - started < MIN_SECONDS:
        before = time.perf_counter()
        call()
        times.append((time.perf_counter() - before) * 1000)
    return times


def _line(row: dict[str, Any]) -> str:
    head = f"{row['model']:9} {row['precision']:5} {row['batch']:5} {row['backend']:12}"
    if "not_run" in row:
        return f"{head} not run: {row['not_run']}"
    shown = "" if row["equal"] else "  NOT EQUAL"
    numbers = [f"{row['p50_ms']:9.3f}", f"{row['p99_ms']:9.3f}", f"{row['samples_per_s']:10,.0f}"]
    parity = [f"{row['max_abs']:9.2e}" if row["max_abs"] is not None else "      nan", f"{row['cosine'] or 0:9.6f}"]
    return " ".join([head, *numbers, *parity]) + shown


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
    """ONNX Runtime on the device, inputs and outputs bound there; never the CPU in a GPU's place."""
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
    """Build the engine of a case where it is not there yet, and run it in the worker."""
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
    _, _, times, parts = _ask(case.folder, job, requests)
    return {**times, "parts": parts, "answer": np.load(folder / "output_0.npy").astype(np.float32)}


def _build(case: Case, onnx: Path, plan: Path, inputs: dict[str, np.ndarray]) -> None:
    dtypes = {name: str(array.dtype) for name, array in inputs.items()}
    shapes = {name: list(array.shape[1:]) for name, array in inputs.items()}
    job = {
        "task": "build", "runtime": "auto", "onnx": str(onnx), "plan": str(plan),
        "inputs": [{"name": name, "dtype": dtypes[name], "shape": [-1, *shape]} for name, shape in shapes.items()], "outputs": ["output"],
        "profiles": [{name: [[1, *shape], [8, *shape], [64, *shape]] for name, shape in shapes.items()}],
        "targets": [], "types": ["fp16"] if case.precision == "fp16" else [], "ops": [], "workspace_mib": None, "optimization_level": None,
        "version_compatible": False, "hardware_compatible": None, "refit": False, "strip": False, "timing_cache": None, "timing_cache_default": False,
    }  # fmt: skip
    _ask(case.folder, job, [])


def _ask(folder: Path, job: dict[str, Any], requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the worker a job and requests, and return its results; what it cannot do is the reason why it was not run."""
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    process = subprocess.Popen(
        [sys.executable, WORKER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin
    assert process.stdout
    results: list[dict[str, Any]] = []
    pending = iter(requests)
    for line in process.stdout:
        message = json.loads(line)
        if "fault" in message:
            process.stdin.close()
            raise NotRunError(message["fault"])
        if "result" in message:
            results.append(message["result"])
            request = next(pending, None)
            if request is None:
                break
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
    _, error = process.communicate()
    if len(results) < 1 + len(requests):
        raise NotRunError(f"the TensorRT process ended with {process.returncode}: {error.strip()[-200:]}")
    return results


BACKENDS: dict[str, Callable[[Case], Any]] = {
    "eager": eager,
    "torchscript": torchscript,
    "cuda-graphs": cuda_graphs,
    "compile": compiled,
    "onnxruntime": onnxruntime,
    "tensorrt": tensorrt,
    "tensorrt+graph": tensorrt_graph,
}


def _machine(device: str) -> dict[str, Any]:
    gpu = torch.cuda.get_device_properties(0) if device == "cuda" else None
    return {
        "device": device,
        "gpu": gpu.name if gpu else None,
        "compute_capability": f"{gpu.major}.{gpu.minor}" if gpu else None,
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }


if __name__ == "__main__":
    sys.exit(main())
