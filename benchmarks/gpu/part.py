"""One backend of the GPU benchmark on every case, in a separate process; each row is written when it is measured.

    python benchmarks/gpu/part.py BACKEND --rows rows.jsonl --folder FOLDER --device cuda --models digits --batches 1 --precisions fp32 \
        --tensorrt-python python3

`run.py` starts it, and stops it if it takes too long; the rows that it has written are used.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from backends import BACKENDS, MIN_CALLS, MIN_SECONDS, WARMUP_CALLS, Case, NotRunError, Ready
from models import MODELS

# The tolerances to eager FP32, the same as in optkit's checks: atol, rtol, the smallest cosine.
TOLERANCES = {"fp32": (1e-4, 1e-3, 0.9999), "fp16": (1e-2, 1e-2, 0.999)}
NO_GPU = 2


def main() -> int:
    """Run the cases and write the rows, the facts of the machine first; return 2 if torch finds no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backend", choices=list(BACKENDS))
    for name in ("rows", "folder"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("device", "models", "batches", "precisions", "tensorrt-python"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        return NO_GPU
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with options.rows.open("a") as rows, torch.inference_mode():
        print(json.dumps({"machine": machine(options.device)}), file=rows, flush=True)
        for name, case in _cases(options):
            about = {"model": name, "precision": case.precision, "batch": case.batch, "backend": options.backend}
            print(json.dumps(about | row(BACKENDS[options.backend], case), allow_nan=False), file=rows, flush=True)
    return 0


def _cases(options: argparse.Namespace) -> Iterator[tuple[str, Case]]:
    device = torch.device(options.device)
    for name in options.models.split(","):
        model = MODELS[name]
        for batch in map(int, options.batches.split(",")):
            right = model.build().to(device)(*(x.to(device) for x in model.inputs(batch))).float().cpu().numpy()
            for precision in options.precisions.split(","):
                yield name, Case(model, precision, batch, device, options.folder, right, options.tensorrt_python)


def row(backend: Callable[[Case], Ready | dict[str, Any]], case: Case) -> dict[str, Any]:
    """Prepare a backend, compare its outputs, and time it; an exception becomes the reason why it was not run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch: TorchScript is deprecated
            ready = backend(case)
            if isinstance(ready, dict):  # measured in a separate process
                times, answer, more = ready["times_ms"], ready["answer"], {"parts": ready["parts"]}
            else:
                call, get = ready
                answer, more = get(), {}
                times = _timed(call)
    except NotRunError as e:
        return {"not_run": str(e)}
    except Exception as e:  # the other backends continue
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


def machine(device: str) -> dict[str, Any]:
    """Return the facts of the machine."""
    gpu = torch.cuda.get_device_properties(0) if device == "cuda" else None
    return {
        "device": device,
        "gpu": gpu.name if gpu else None,
        "compute_capability": f"{gpu.major}.{gpu.minor}" if gpu else None,
        "driver": _driver() if gpu else None,
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }


def _driver() -> str | None:
    command = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
    return None


if __name__ == "__main__":
    sys.exit(main())
