"""Eager PyTorch, TorchScript, CUDA graphs, torch.compile, ONNX Runtime and TensorRT on one GPU: latency, throughput, parity.

    python benchmarks/gpu/run.py [--models digits,resnet50,minilm] [--batches 1,8,64] [--precisions fp32,fp16] [--budget 540]
                                 [--tensorrt-python PATH] [--keep]

Needs torch, onnx and numpy. Uses onnxruntime with CUDA, tensorrt or tensorrt_rtx with pycuda if they are installed; the table shows a missing
one as "not run: reason". From optkit, only the TensorRT worker is imported, which needs no other package of optkit.

Every backend runs in a separate process with a time limit, so a crash, or a compiler that does not end, loses only the numbers of this
backend; the results are written again after each backend. All together take at most `--budget` seconds.

A number is one call with inputs on the GPU, until its end, without copies between host and device: the median and the 99th percentile of
the calls in at least 0.5 s after a warm-up, on the host's clock. Parity compares the outputs with eager FP32 on the same inputs; TF32 is off.
`--device cpu` tests the script on a machine without a GPU; these numbers have no meaning, and are written only with `--json`.
"""

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PART = Path(__file__).resolve().with_name("part.py")
RESULTS = Path(__file__).resolve().parents[1] / "results" / "gpu.json"
NO_GPU = 2
# Time limit in seconds of a backend for all its cases. The order is such that a slow start does not take the time of the others.
LIMITS_S = {
    "eager": 90.0, "torchscript": 90.0, "cuda-graphs": 90.0, "onnxruntime": 120.0, "tensorrt": 300.0, "tensorrt+graph": 90.0,
    "compile": 240.0,
}  # fmt: skip
Row = dict[str, Any]


def main() -> int:
    """Run all, print the table, write it as JSON and Markdown; 1 if outputs are not equal to eager FP32, 2 if there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="digits,resnet50,minilm")
    parser.add_argument("--batches", default="1,8,64")
    parser.add_argument("--precisions", default="fp32,fp16")
    parser.add_argument("--backends", type=lambda text: text.split(","), default=list(LIMITS_S))
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument(
        "--tensorrt-python", default=sys.executable, help="the interpreter that has TensorRT and pycuda"
    )
    parser.add_argument("--budget", type=float, default=540.0, help="seconds for all together")
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--keep", action="store_true", help="keep what the JSON file has of other backends, on the same GPU"
    )
    options = parser.parse_args()
    ends = time.monotonic() + options.budget
    document: dict[str, Any] = {"machine": None, "settings": {"tf32": False, "min_seconds": 0.5}, "rows": []}
    target = options.json or (RESULTS if options.device == "cuda" else None)
    kept = _kept(target, options.backends) if options.keep else {}
    with tempfile.TemporaryDirectory(prefix="optkit-gpu-") as folder:
        for backend in options.backends:
            code, rows, machine = _part(backend, options, Path(folder), min(LIMITS_S[backend], ends - time.monotonic()))
            if code == NO_GPU:
                print("not run: torch finds no NVIDIA GPU here")
                return NO_GPU
            document["machine"] = document["machine"] or machine
            if kept and machine and kept["machine"]["gpu"] == machine["gpu"]:
                document["rows"], kept = kept["rows"], {}
            document["rows"] += rows
            for row in rows:
                print(_line(row), flush=True)
            _write(document, target)
    print("\n" + _markdown(document))
    return 1 if any(row.get("equal") is False for row in document["rows"]) else 0


def _kept(path: Path | None, backends: Sequence[str]) -> dict[str, Any]:
    """Return the rows of other backends in a file; an empty list if there is no such file."""
    if path is None or not path.exists():
        return {}
    document: dict[str, Any] = json.loads(path.read_text())
    return {**document, "rows": [row for row in document["rows"] if row["backend"] not in backends]}


def _part(
    backend: str, options: argparse.Namespace, folder: Path, limit_s: float
) -> tuple[int, list[Row], dict[str, Any] | None]:
    """Run one backend; return its exit code, a row for every case, and the facts of the machine."""
    rows, log = folder / f"{backend}.jsonl", folder / f"{backend}.log"
    asked = {name: getattr(options, name) for name in ("device", "models", "batches", "precisions", "tensorrt_python")}
    asked |= {"rows": str(rows), "folder": str(folder)}
    command = [
        sys.executable,
        str(PART),
        backend,
        *(part for name, value in asked.items() for part in (f"--{name.replace('_', '-')}", value)),
    ]
    code, reason = 0, f"no time was left of {options.budget:g} s"
    if limit_s > 0:
        with log.open("w") as printed:
            code, reason = _ended(command, printed, limit_s)
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        reason += f": {last[0][:200]}" if code and last else ""
    lines = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    found = {(row["model"], row["precision"], row["batch"]): row for row in lines if "model" in row}
    machine = next((line["machine"] for line in lines if "machine" in line), None)
    return code, [found.get(case) or _missing(case, backend, reason) for case in _cases(options)], machine


def _ended(command: Sequence[str], printed: Any, limit_s: float) -> tuple[int, str]:
    """Run a command to its end or to the limit; return its exit code, and how it ended."""
    process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        code = process.wait(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # compilers and TensorRT are its children
        process.wait()
        return 0, f"cut off after {limit_s:.0f} s"
    if code < 0:
        return code, f"the process was ended by {signal.Signals(-code).name}"
    return code, f"the process ended with {code}"


def _cases(options: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    batches = map(int, options.batches.split(","))
    for model, batch, precision in itertools.product(options.models.split(","), batches, options.precisions.split(",")):
        yield model, precision, batch


def _missing(case: tuple[str, str, int], backend: str, reason: str) -> Row:
    model, precision, batch = case
    return {"model": model, "precision": precision, "batch": batch, "backend": backend, "not_run": reason}


def _write(document: dict[str, Any], path: Path | None) -> None:
    """Write the results so far atomically, as JSON and as Markdown."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = {path: json.dumps(document, indent=2, allow_nan=False) + "\n", path.with_suffix(".md"): _markdown(document)}
    for target, text in texts.items():
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        temporary.write_text(text)
        temporary.replace(target)


_HEAD = (
    "| model | precision | batch | backend | p50 ms | p99 ms | samples/s | max abs | cosine | equal |\n"
    + "|---" * 10
    + "|\n"
)


def _line(row: Row) -> str:
    head = f"| {row['model']} | {row['precision']} | {row['batch']} | {row['backend']} |"
    if "not_run" in row:
        return f"{head} not run: {row['not_run'].replace('|', '/')} | | | | | |"
    parity = f"{row['max_abs']:.2e} | {row['cosine']:.6f}" if row["max_abs"] is not None else "nan | nan"
    numbers = f"{row['p50_ms']:.3f} | {row['p99_ms']:.3f} | {row['samples_per_s']:,.0f}"
    return f"{head} {numbers} | {parity} | {'yes' if row['equal'] else '**NO**'} |"


def _markdown(document: dict[str, Any]) -> str:
    """Return the table and the facts of the machine."""
    rows = document["rows"]
    measured, wrong = sum("p50_ms" in row for row in rows), sum(row.get("equal") is False for row in rows)
    machine = ", ".join(f"{name} {value}" for name, value in (document["machine"] or {}).items() if value is not None)
    return (
        "# Backends on one GPU\n\nWritten by `benchmarks/gpu/run.py`, which says what a number is.\n\n"
        f"**{measured} measured, {wrong} of them not equal to eager FP32; {len(rows) - measured} not run.**\n\n"
        + _HEAD
        + "".join(f"{_line(row)}\n" for row in rows)
        + f"\n{machine}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
