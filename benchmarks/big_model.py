"""Peak memory of a model too large for one protobuf, for each command, as a ratio to the size of its weights.

    python benchmarks/big_model.py [--json benchmarks/results/big_model.json] [--work FOLDER]

The model is plain linear layers with seeded random weights, 2.3 GB in FP32. Each command is a separate process; its peak is the `ru_maxrss`
that the kernel reports at its end, which includes pages of mapped files. The lower bound of an export is a process that only builds the same
module. The target for every command is at most 3 times the size of the weights. Needs 8 GB of disk.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TARGET = 3.0
WIDTH, LAYERS = 8000, 9
DISK_BYTES, MEMORY_BYTES = 8_000_000_000, 9_000_000_000
OPTKIT = str(Path(sys.executable).with_name("optkit"))
CODE = f"""\
import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        return x + torch.relu(self.linear(x))


def build(width={WIDTH}, layers={LAYERS}):
    return nn.Sequential(*(Residual(width) for _ in range(layers)))
"""
BUILD = "import big; module = big.build()"
EXPORT = ("export", "onnx", "big.py:build", "--input", f"x:float32[batch,{WIDTH}]", "--dim", "batch=1:4:8")
COMMANDS: dict[str, list[str]] = {
    "build the module, nothing else": [sys.executable, "-c", BUILD],
    "export onnx (dynamo)": [OPTKIT, *EXPORT, "--exporter", "dynamo", "-o", "big.onnx"],
    "export onnx (torchscript)": [OPTKIT, *EXPORT, "--exporter", "torchscript", "-o", "traced.onnx"],
    "convert fp16": [OPTKIT, "convert", "fp16", "big.onnx", "-o", "half.onnx"],
    "check": [OPTKIT, "check", "big.onnx", "half.onnx"],
    "bench": [OPTKIT, "bench", "big.onnx", "half.onnx", "--time-limit-s", "0.001"],
}


def shortage(folder: Path) -> str | None:
    """Return the resource that is too small on this machine; None if there is enough of each."""
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < DISK_BYTES:
        return f"needs {DISK_BYTES / 1e9:.0f} GB of disk"
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return "needs Linux, for the peak memory of a child process"
    free = next(int(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines() if "MemAvailable" in line)
    return f"needs {MEMORY_BYTES / 1e9:.0f} GB of free memory" if free < MEMORY_BYTES else None


def measure(folder: Path) -> dict[str, Any]:
    """Run every command in `folder` and return its time and memory; stop at the first that fails."""
    (folder / "big.py").write_text(CODE)
    weights = 4 * LAYERS * (WIDTH + 1) * WIDTH
    found: dict[str, Any] = {"weights_bytes": weights, "target": TARGET, "commands": {}}
    for name, command in COMMANDS.items():
        started = time.perf_counter()
        with (folder / "output.txt").open("w") as output:
            process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        text = (folder / "output.txt").read_text()
        if process.returncode:
            raise RuntimeError(f"{name}: exit code {process.returncode}\n{text}")
        peak = usage.ru_maxrss * 1024
        found["commands"][name] = {"ratio": peak / weights, "peak_bytes": peak, "seconds": seconds, "output": text}
        print(f"{name:32} {peak / weights:5.2f}x {peak / 1e9:6.2f} GB {seconds:6.0f} s", flush=True)
        for file in folder.glob("traced.onnx*"):  # no later step needs it, and it is 2.3 GB
            file.unlink()
    return found


def machine() -> dict[str, Any]:
    """Return the facts of this machine and the versions of the libraries."""
    from optkit import deps
    from optkit.benchmark import this_machine

    return {"machine": this_machine().model_dump(), "versions": dict(deps.built_with())}


def table(found: dict[str, Any]) -> str:
    """Return the numbers as Markdown."""
    lines = [
        "# A model of 2.3 GB: peak memory per command",
        "",
        f"Written by `benchmarks/big_model.py`. Weights: {found['weights_bytes'] / 1e9:.2f} GB of FP32, {LAYERS} linear layers of "
        f"{WIDTH} x {WIDTH}, random. The peak is the process's `ru_maxrss`, pages of mapped files included; the target is at most "
        f"{TARGET:g} times the weights.",
        "",
        "| command | peak / weights | peak GB | seconds |",
        "|---|---|---|---|",
    ]
    for name, row in found["commands"].items():
        lines.append(f"| {name} | {row['ratio']:.2f} | {row['peak_bytes'] / 1e9:.2f} | {row['seconds']:.0f} |")
    m = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines += [
        "",
        f"{m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB, {m['system']}; Python {m['python']}, {versions}.",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure, print, and return 1 when the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the numbers go; a table goes beside it as .md")
    parser.add_argument("--work", type=Path, help="a folder on a disk with room", default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    missing = shortage(options.work)
    if missing:
        print(missing, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        found = measure(Path(folder)) | machine()
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
        options.json.with_suffix(".md").write_text(table(found))
    return 0 if all(row["ratio"] <= TARGET for row in found["commands"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
