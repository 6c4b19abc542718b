"""What calibration costs, and what its ranges are worth, beside the floor and the peers.

    python benchmarks/calibration.py [--quick] [--samples 64,128,512,1024] [--rounds 3] [--peer-python PATH] [--work FOLDER]

The model is ResNet-18 at 3x224x224, one sample a feed. The floor is the same forward passes in one ONNX Runtime session with default
options. Every measurement is a process of its own and stands between two of the floor; a ratio is that of its time to their mean, and the
median over the rounds is taken. Memory is the peak of the whole process, and its slope that from the smallest to the largest number of
samples. What would need more memory than the machine has left is not run, and said to be so.

Peers: ONNX Runtime's own calibrators, by default and one sample at a time (CalibStridedMinMax=1); Olive and modelopt, which pin other
versions, under the interpreter that `--peer-python` names, and there against a floor of their own. Theirs is the time of quantizing.

With `--work` what was measured is kept there, and a second call measures only what is missing. Targets: min-max 1.4 times the floor's
time; entropy, percentile and mse 2.5 times exact and 1.5 times sampled; 1.6 times its memory, and under 0.02 MiB a sample.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WORKER = HERE / "calibration" / "worker.py"
TARGET_MEMORY, TARGET_SLOPE_MIB = 1.6, 0.02
TARGET_TIME = {
    "minmax": 1.4, "moving-average": 1.4, "percentile": 2.5, "entropy": 2.5, "mse": 2.5,
    "percentile/8": 1.5, "entropy/8": 1.5, "mse/8": 1.5,
}  # fmt: skip
# Ranges of one method by two tools, as shares of the width of a range. The graphs are optimized differently, so sums are rounded
# differently; a percentile lies within a bin of ONNX Runtime's 2048.
TOLERANCE = {"minmax": 1e-4, "percentile": 2e-3}
TIME_LIMIT_S = 3600.0


@dataclass(frozen=True)
class Job:
    """A tool with one of its methods."""

    tool: str
    method: str

    def __str__(self) -> str:
        return f"{self.tool} {self.method}"


OURS = [Job("optkit", method) for method in TARGET_TIME]
RUNTIME = [
    Job("onnxruntime", f"{method}{how}") for method in ("minmax", "percentile", "entropy") for how in ("", "/strided")
]
PEERS = [Job("olive", "minmax"), Job("modelopt", "minmax"), Job("modelopt", "entropy")]


class Bench:
    """Runs jobs, each in a process of its own, and keeps what they gave in a folder."""

    def __init__(self, work: Path, peer_python: str | None) -> None:
        self.work = work
        self.peer_python = peer_python
        self.model = work / "model.onnx"
        if not self.model.exists():
            _make_model(self.model)

    def once(self, job: Job, samples: int, part: str) -> dict[str, Any]:
        """Return what one run gave; `part` names it among its like."""
        name = hashlib.sha256(f"{job} {samples} {part}".encode()).hexdigest()[:16]
        result = self.work / f"{name}.json"
        if not result.exists():
            partial = result.with_suffix(".partial")
            interpreter = self.peer_python if self._elsewhere(job, part) else sys.executable
            command = [interpreter, str(WORKER), job.tool, job.method, str(self.model), str(samples), str(partial)]
            load = os.getloadavg()[0]
            run = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False)
            if run.returncode:
                raise SystemExit(f"{job}, {samples} samples: failed\n{run.stderr[-2000:]}")
            found = json.loads(partial.read_text()) | {"load": load}
            partial.write_text(json.dumps(found))
            partial.replace(result)
        return json.loads(result.read_text())

    def measure(self, job: Job, samples: int, rounds: int) -> dict[str, Any]:
        """Return the job's ratios to the floors before and after it."""
        runs, floors, ratios, cpu_ratios = [], [], [], []
        floor, peer = Job("floor", "forward"), "peer " if job in PEERS else ""
        for number in range(rounds):
            before = self.once(floor, samples, f"{peer}before {job} {number}")
            runs.append(self.once(job, samples, str(number)))
            after = self.once(floor, samples, f"{peer}after {job} {number}")
            floors += [before, after]
            ratios.append(2 * runs[-1]["seconds"] / (before["seconds"] + after["seconds"]))
            cpu_ratios.append(2 * runs[-1]["cpu_seconds"] / (before["cpu_seconds"] + after["cpu_seconds"]))
        floor_mib = statistics.median(f["peak_mib"] for f in floors)
        peak = statistics.median(run["peak_mib"] for run in runs)
        return {
            "tool": job.tool,
            "method": job.method,
            "samples": samples,
            "time_ratio": statistics.median(ratios),
            "time_ratios": ratios,
            "cpu_ratio": statistics.median(cpu_ratios),
            "seconds": [run["seconds"] for run in runs],
            "floor_seconds": [f["seconds"] for f in floors],
            "peak_mib": peak,
            "floor_mib": floor_mib,
            "memory_ratio": peak / floor_mib,
            "loads": [run["load"] for run in runs],
        }

    def _elsewhere(self, job: Job, part: str) -> bool:
        return job in PEERS or part.startswith("peer ")


def main() -> int:
    """Measure, print the table, write it; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two small sizes, one round: does it work?")
    parser.add_argument("--samples", type=_numbers, default=None, help="64,128,512,1024")
    parser.add_argument("--rounds", type=int, default=None, help="3")
    parser.add_argument("--jobs", default="", help="only those whose name holds this text, such as 'optkit'")
    parser.add_argument("--peer-python", help="an interpreter that has Olive and modelopt")
    parser.add_argument("--work", type=Path, help="keep the single runs here, and go on from them")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "calibration", help="without suffix")
    options = parser.parse_args()
    samples = options.samples or ([64, 128] if options.quick else [64, 128, 512, 1024])
    rounds = options.rounds or (1 if options.quick else 3)
    with tempfile.TemporaryDirectory(prefix="calibration-") as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        bench = Bench(work.absolute(), options.peer_python)
        jobs = [*OURS, *RUNTIME, *(PEERS if options.peer_python else [])]
        jobs = [job for job in jobs if options.jobs in str(job)]
        found = [_series(bench, job, samples, rounds) for job in jobs]
        ranges = _compare_ranges(bench, min(samples), jobs)
    document = _document(found, ranges, samples, rounds)
    options.output.parent.mkdir(exist_ok=True)
    options.output.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n")
    text = _table(document)
    options.output.with_suffix(".md").write_text(text)
    print(text)
    return 1 if document["missed"] else 0


def _series(bench: Bench, job: Job, samples: list[int], rounds: int) -> dict[str, Any]:
    """Measure a job at every number of samples that memory allows."""
    points: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    for count in samples:
        needed = _extrapolated_mib(points, count)
        if needed > 0.8 * _free_mib():
            skipped[str(count)] = f"would need about {needed / 1024:.0f} GiB"
            continue
        points.append(bench.measure(job, count, rounds))
        point = points[-1]
        print(
            f"{job!s:32} {count:5} samples  {point['time_ratio']:.2f}x time ({point['cpu_ratio']:.2f}x of the processor's)  "
            f"{point['memory_ratio']:.2f}x memory ({point['peak_mib']:.0f} MiB)",
            file=sys.stderr,
        )
    first, last = points[0], points[-1]
    span = last["samples"] - first["samples"]
    # Two runs of one process differ by 10 MiB; only over many samples is that no slope.
    slope = (last["peak_mib"] - first["peak_mib"]) / span if span >= 512 else None
    return {
        "job": str(job),
        "tool": job.tool,
        "method": job.method,
        "points": points,
        "skipped": skipped,
        "slope_mib": slope,
    }


def _extrapolated_mib(points: list[dict[str, Any]], samples: int) -> float:
    if len(points) < 2:
        return points[0]["peak_mib"] * samples / points[0]["samples"] if points and points[0]["peak_mib"] > 1000 else 0
    (a, b) = points[-2:]
    slope = (b["peak_mib"] - a["peak_mib"]) / (b["samples"] - a["samples"])
    return b["peak_mib"] + slope * (samples - b["samples"])


def _compare_ranges(bench: Bench, samples: int, jobs: list[Job]) -> list[dict[str, Any]]:
    """Hold the ranges of optkit against those of ONNX Runtime's calibrators, for the methods that both define alike."""
    found = []
    for method, tolerance in TOLERANCE.items():
        mine, theirs = Job("optkit", method), Job("onnxruntime", method)
        if mine not in jobs or theirs not in jobs:
            continue
        ours, right = bench.once(mine, samples, "0")["ranges"], bench.once(theirs, samples, "0")["ranges"]
        common = sorted(set(ours) & set(right))
        off = {name: _distance(ours[name], right[name]) for name in common}
        worst = max(off, key=off.__getitem__)
        found.append(
            {
                "method": method,
                "tensors": len(common),
                "worst_tensor": worst,
                "worst_share_of_width": off[worst],
                "tolerance": tolerance,
                "equal": len(common) > 0 and off[worst] <= tolerance,
            }
        )
    return found


def _distance(mine: list[float], right: list[float]) -> float:
    """Return the larger distance of two ends as a share of the width; every range of ours holds zero."""
    low, high = min(right[0], 0), max(right[1], 0)
    return max(abs(mine[0] - low), abs(mine[1] - high)) / max(high - low, 1e-12)


def _document(
    found: list[dict[str, Any]], ranges: list[dict[str, Any]], samples: list[int], rounds: int
) -> dict[str, Any]:
    from importlib import metadata

    from optkit.bench import this_machine

    ours = [series for series in found if series["tool"] == "optkit"]
    missed = [f"{series['job']}: {fault}" for series in ours for fault in _faults(series)]
    missed += [f"ranges by {r['method']} differ by {r['worst_share_of_width']:.1e}" for r in ranges if not r["equal"]]
    return {
        "schema": "optkit/bench-calibration/1",
        "machine": this_machine().model_dump(),
        "versions": {name: metadata.version(name) for name in ("optkit", "onnxruntime-gpu", "numpy")},
        "samples": samples,
        "rounds": rounds,
        "targets": {"time": TARGET_TIME, "memory": TARGET_MEMORY, "slope_mib": TARGET_SLOPE_MIB},
        "series": found,
        "ranges": ranges,
        "missed": missed,
    }


def _faults(series: dict[str, Any]) -> list[str]:
    """Return the targets that a series of ours misses; time and memory at 128 samples or the next to it, where the issue has them."""
    point = min(series["points"], key=lambda p: abs(p["samples"] - 128))
    limit = TARGET_TIME[series["method"]]
    faults = []
    if not point["time_ratio"] <= limit:
        faults.append(f"time {point['time_ratio']:.2f}x, target {limit}")
    if not point["memory_ratio"] <= TARGET_MEMORY:
        faults.append(f"memory {point['memory_ratio']:.2f}x, target {TARGET_MEMORY}")
    if series["slope_mib"] is not None and not series["slope_mib"] < TARGET_SLOPE_MIB:
        faults.append(f"{series['slope_mib']:.3f} MiB a sample, target {TARGET_SLOPE_MIB}")
    return faults


def _table(document: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    machine, samples = document["machine"], document["samples"]
    load = max(max(p["loads"]) for s in document["series"] for p in s["points"])
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; {document['rounds']} rounds; load up to {load:.1f}.",
        "",
        "Time / floor, then the peak of the process in MiB, for each number of samples; the slope is in MiB a sample.",
        "",
        "| | " + " | ".join(str(n) for n in samples) + " | slope |",
        "|---" * (len(samples) + 2) + "|",
    ]
    for series in document["series"]:
        points = {p["samples"]: p for p in series["points"]}
        cells = [
            f"{points[n]['time_ratio']:.2f}, {points[n]['peak_mib']:.0f}" if n in points else series["skipped"][str(n)]
            for n in samples
        ]
        slope = "" if series["slope_mib"] is None else f"{series['slope_mib']:.3f}"
        lines.append(f"| {series['job']} | {' | '.join(cells)} | {slope} |")
    floors = [p["floor_mib"] for s in document["series"] if s["tool"] == "optkit" for p in s["points"]]
    lines += ["", f"The floor's peak is {statistics.median(floors):.0f} MiB."] if floors else []
    for r in document["ranges"]:
        verdict = "equal" if r["equal"] else "differ"
        lines.append(
            f"Ranges by {r['method']}: {verdict} to ONNX Runtime's for {r['tensors']} tensors, at most "
            f"{r['worst_share_of_width']:.1e} of a width apart (tolerance {r['tolerance']:g})."
        )
    lines += ["", *(f"Missed: {fault}." for fault in document["missed"])] if document["missed"] else []
    return "\n".join(lines) + "\n"


def _make_model(path: Path) -> None:
    """Write ResNet-18 with seeded weights and normalised activations, prepared as every quantizer of these wants it."""
    import warnings

    import torch
    from onnxruntime.quantization.shape_inference import quant_pre_process

    sys.path.insert(0, str(HERE.parent / "recipes"))
    from resnet import ResNet18

    torch.manual_seed(0)
    model = ResNet18(classes=1000).train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, 224, 224))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw, prepared = Path(folder) / "raw.onnx", Path(folder) / "prepared.onnx"
        torch.onnx.export(
            model.eval(), (torch.randn(2, 3, 224, 224),), str(raw), dynamo=False, opset_version=17,
            input_names=["image"], output_names=["logits"], dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )  # fmt: skip
        quant_pre_process(raw, prepared, skip_symbolic_shape=True)
        prepared.replace(path)


def _free_mib() -> float:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if "MemAvailable" in line)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
