"""Check the intervals of the benchmark: a model against a copy of itself, and against a model with 5 % more work.

    python benchmarks/ab_null.py [--trials 100] [--runtime onnx|torchscript] [--load 1]

One trial is one complete comparison with `optkit.benchmark.measure`, like `optkit bench A B C`: a stack of equal matrix products (20 layers), a
byte-identical copy of the file, and a stack with one more layer. The true ratio of the copy is 1, so its 95 % interval must contain 1 in 92 to
98 % of the trials. The longer stack does 21/20 of the work and must be found slower in at least 90 % of the trials. The machine has other load
during the trials: `--load` processes multiply matrices in bursts of random length. The load average is recorded.

Ten trials share a process, so that properties of a process, such as the position of its memory, also vary. Every trial is written when it
ends, and a stopped run continues there; `--fresh` starts from the beginning. Exit code 1: a target is missed.
"""

import argparse
import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from optkit.artifact import Artifact
    from optkit.benchmark import BenchSettings

LAYERS, WIDTH, BATCH = 20, 96, 32
TRUTH = LAYERS / (LAYERS + 1)  # of the speed-up of the longer stack, by construction
TRIALS_A_PROCESS = 10
COVERAGE, MAX_SD, MIN_FOUND = (0.92, 0.98), 0.015, 0.90
HERE = Path(__file__).resolve()
RESULTS = HERE.parent / "results"
BURSTS = """
import os
import time
import numpy as np
parent = os.getppid()
random = np.random.default_rng()
a = random.standard_normal((512, 512)).astype(np.float32)
while os.getppid() == parent:  # it also ends if the benchmark was killed
    end = time.monotonic() + random.exponential(0.5)
    while time.monotonic() < end:
        a @ a
    time.sleep(random.exponential(0.5))
"""

Trial = dict[str, object]


def main() -> int:
    """Make the trials that are missing, print the table, write it with the machine's facts; 1 when a target is missed."""
    if sys.argv[1:2] == ["worker"]:
        _worker(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), [int(seed) for seed in sys.argv[5:]])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--runtime", choices=["onnx", "torchscript"], default="onnx")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--load", type=int, default=1, help="processes that run during the benchmark")
    parser.add_argument("--fresh", action="store_true", help="delete the trials of an earlier run")
    parser.add_argument("--work", type=Path, default=Path("build/ab_null"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    kept = options.work / f"{options.runtime}-{options.threads}-{options.load}.jsonl"
    if options.fresh:
        kept.unlink(missing_ok=True)
    with _load(options.load):
        while missing := sorted(set(range(options.trials)) - {int(str(t["seed"])) for t in _read(kept)}):
            seeds = [str(seed) for seed in missing[:TRIALS_A_PROCESS]]
            command = [sys.executable, str(HERE), "worker", str(kept), options.runtime, str(options.threads), *seeds]
            subprocess.run(command, check=True)
    trials = sorted(_read(kept), key=lambda t: int(str(t["seed"])))[: options.trials]
    found = _summary(trials, options)
    _write(found, trials)
    print(_table(found))
    return 0 if found["passed"] else 1


def _summary(trials: Sequence[Trial], options: argparse.Namespace) -> dict[str, object]:
    from optkit.benchmark import this_machine
    from optkit.deps import built_with

    null, slow = [[t[name] for t in trials] for name in ("copy", "longer")]
    coverage, sd = _coverage(null, 1, "low", "high"), float(np.std([math.log(s["ratio"]) for s in null], ddof=1))
    found = float(np.mean([s["verdict"] == "slower" for s in slow]))
    return {
        "runtime": options.runtime,
        "threads": options.threads,
        "load_processes": options.load,
        "load_average": float(np.median([t["load_average"] for t in trials])),
        "trials": len(trials),
        "coverage": coverage,
        "free_coverage": _coverage(null, 1, "free_low", "free_high"),
        "sd_log_ratio": sd,
        "mean_ratio": _mean(null),
        "verdicts": {v: sum(s["verdict"] == v for s in null) for v in sorted({s["verdict"] for s in null})},
        "slow_truth": TRUTH,
        "slow_ratio": _mean(slow),
        "slow_found": found,
        "slow_coverage_of_mean": _coverage(slow, _mean(slow), "low", "high"),
        "blocks": float(np.median([s["blocks"] for s in null])),
        "seconds": float(np.median([t["seconds"] for t in trials])),
        "p50_ms": float(np.median([t["p50_ms"] for t in trials])),
        "passed": COVERAGE[0] <= coverage <= COVERAGE[1] and sd <= MAX_SD and found >= MIN_FOUND,
        "settings": _settings(options.threads).model_dump(mode="json"),
        "machine": this_machine().model_dump(mode="json"),
        "versions": built_with(),
    }


def _coverage(found: Sequence[dict[str, float]], truth: float, low: str, high: str) -> float:
    """Return the share of intervals that contain the true ratio; a trial with too few blocks has no interval."""
    return float(np.mean([s[low] is not None and s[low] <= truth <= s[high] for s in found]))


def _mean(found: Sequence[dict[str, float]]) -> float:
    return float(np.exp(np.mean([math.log(s["ratio"]) for s in found])))


def _write(found: dict[str, object], trials: Sequence[Trial]) -> None:
    """Add these results to those of the other settings, and write the table of all."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "ab_null.json"
    every = json.loads(path.read_text()) if path.is_file() else []
    key = ("runtime", "threads", "load_processes")
    every = [e for e in every if [e[k] for k in key] != [found[k] for k in key]]
    every = sorted([*every, found | {"all_trials": list(trials)}], key=lambda e: [str(e[k]) for k in key])
    path.write_text(json.dumps(every, indent=1) + "\n")
    title = (
        "# A model against a copy of itself, and against one with 5 % more work\n\nWritten by `benchmarks/ab_null.py`."
    )
    (RESULTS / "ab_null.md").write_text("\n\n".join([title, *map(_table, every)]) + "\n")


def _table(found: dict[str, object]) -> str:
    machine, settings = found["machine"], found["settings"]
    assert isinstance(machine, dict)
    assert isinstance(settings, dict)
    rows = [
        ("copy: 95 % t interval holds 1", f"{found['coverage']:.0%}", f"{COVERAGE[0]:.0%} to {COVERAGE[1]:.0%}"),
        ("copy: distribution-free interval holds 1", f"{found['free_coverage']:.0%}", "at least 95 %, by construction"),
        ("copy: sd of the log ratio", f"{found['sd_log_ratio']:.4f}", f"at most {MAX_SD}"),
        ("copy: mean ratio", f"{found['mean_ratio']:.4f}", "1"),
        ("copy: verdicts", ", ".join(f"{n} {v}" for v, n in dict(found["verdicts"]).items()), "no difference"),
        ("one layer more: found slower", f"{found['slow_found']:.0%}", f"at least {MIN_FOUND:.0%}"),
        ("one layer more: mean ratio", f"{found['slow_ratio']:.4f}", f"{found['slow_truth']:.4f} by construction"),
        ("one layer more: t interval holds the mean", f"{found['slow_coverage_of_mean']:.0%}", ""),
    ]
    lines = [
        f"## {found['runtime']}, {found['threads']} thread, {found['load_processes']} other process at work",
        "",
        f"{found['trials']} trials of {found['blocks']:.0f} blocks of {settings['block_s'] * 1000:.0f} ms and {found['seconds']:.1f} s (medians), p50 {found['p50_ms']:.3f} ms; "
        f"load average {found['load_average']:.1f} on {machine['cores']} cores of {machine['cpu']}.",
        "",
        "| | found | target |",
        "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join(lines)


@contextlib.contextmanager
def _load(processes: int) -> Iterator[None]:
    """Let other processes work in bursts while the block runs."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    others = [subprocess.Popen([sys.executable, "-c", BURSTS], env=environment) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def _read(kept: Path) -> list[Trial]:
    """Return the trials that were written completely."""
    found = []
    for line in kept.read_text().splitlines() if kept.is_file() else []:
        with contextlib.suppress(json.JSONDecodeError):  # a line that was cut off, or empty
            found.append(json.loads(line))
    return found


# --- one process ---------------------------------------------------------------------------------------------------------------------


def _worker(kept: Path, runtime: str, threads: int, seeds: Sequence[int]) -> None:
    """Run these trials, and write each one when it ends."""
    from optkit.benchmark import load_average, measure
    from optkit.data import Samples

    with tempfile.TemporaryDirectory(prefix="ab-null-") as name:
        artifacts = _artifacts(Path(name), runtime)
        samples = Samples(artifacts["original"].inputs, artifacts["original"].dims)
        for seed in seeds:
            started, load = time.perf_counter(), load_average()
            found = measure(artifacts, samples, _settings(threads, seed))
            trial = {
                "seed": seed,
                "seconds": time.perf_counter() - started,
                "load_average": load,
                "p50_ms": found.measurements[0].p50_ms,
                **{s.candidate: s.model_dump(mode="json") for s in found.speed_ups},
            }
            with kept.open("a") as stream:
                stream.write(f"\n{json.dumps(trial)}")  # on a new line, even if the line before was cut off
            print(_told(trial), flush=True)


def _settings(threads: int, seed: int = 0) -> "BenchSettings":
    from optkit.benchmark import BenchSettings

    return BenchSettings(batches=(BATCH,), threads=threads, seed=seed)


def _artifacts(folder: Path, runtime: str) -> "dict[str, Artifact]":
    """Return the stack, a copy of its file, and the longer stack."""
    from optkit.artifact.tensors import DimRange, TensorSpec
    from optkit.pytorch.source import make_source
    from optkit.stages import ExportOnnx, ExportTorchScript

    stage = ExportTorchScript() if runtime == "torchscript" else ExportOnnx(exporter="torchscript", opset=17)
    made = {}
    for name, layers in (("original", LAYERS), ("longer", LAYERS + 1)):
        dims = {"batch": DimRange(min=1, opt=BATCH, max=2 * BATCH)}
        inputs = (TensorSpec.parse(f"x:float32[batch,{WIDTH}]"),)
        source = make_source(f"{HERE}:build", folder / name, inputs, dims, args={"layers": layers})
        made[name] = stage.run(source, folder / f"{name}-file")
    path = folder / f"copy{made['original'].path.suffix}"
    shutil.copyfile(made["original"].path, path)
    return {
        "original": made["original"],
        "copy": made["original"].model_copy(update={"path": path}),
        "longer": made["longer"],
    }


def build(layers: int) -> "nn.Module":
    """Return a stack of equal matrix products; the factory that optkit exports."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(
        *(module for _ in range(layers) for module in (nn.Linear(WIDTH, WIDTH, bias=False), nn.ReLU()))
    )


def _told(trial: Trial) -> str:
    shown = [
        f"{name} {s['ratio']:.4f} [{s['low']:.4f}, {s['high']:.4f}] {s['verdict']}"
        for name, s in trial.items()
        if isinstance(s, dict)
    ]
    return f"trial {trial['seed']}: {'; '.join(shown)} ({trial['seconds']:.1f} s)"


if __name__ == "__main__":
    sys.exit(main())
