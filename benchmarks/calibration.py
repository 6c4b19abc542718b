"""The cost of calibration and the quality of its ranges, compared with a lower bound and with other tools.

    python benchmarks/calibration.py [--quick] [--part time|memory] [--peer-python PATH] [--work FOLDER [--limit-s 420]]

The model is ResNet-18 at 3x224x224, with one sample per feed. The lower bound ("floor") is the same forward passes in one ONNX Runtime session
with default options. Every run is a separate process. Time is measured at 64 and 128 samples: each run is between two runs of the floor, the
ratio is its time divided by their mean, and the result is the median over the rounds; other tools have one round. Memory is the peak of the
whole process. Two runs of one process differ by up to 40 MiB because of the way ONNX Runtime loads a model, so optkit's slope is measured
within one run, from 64 to 1024 samples. Methods with histograms keep the same data, exact or sampled, so entropy's two runs represent the
others. The part `memory` (those runs) can use any machine; the part `time` needs a quiet one.

Other tools: ONNX Runtime's own calibrators, by default and one sample at a time (CalibStridedMinMax=1); Olive and modelopt, which need other
versions, with the interpreter in `--peer-python`, compared with a floor under the same interpreter. Their time is the time of quantizing. They
run at 64 and 128 samples; larger runs are estimated, not run.

With `--work`, the measurements are stored there, and a second call measures only the missing ones. Targets: min-max 1.4 times the floor's
time; entropy, percentile and mse 2.5 times exact and 1.5 times sampled; 1.6 times its memory, and less than 0.02 MiB per sample.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from calibration.results import TARGET_TIME, compared_ranges, document, table, write
from calibration.runs import Job, OutOfTimeError, Runs

HERE = Path(__file__).resolve().parent
TIMED, LARGE = (64, 128), 1024
OURS = [Job("optkit", method) for method in TARGET_TIME]
RUNTIME = [
    Job("onnxruntime", f"{method}{how}") for method in ("minmax", "percentile", "entropy") for how in ("", "/strided")
]
PEERS = [Job("olive", "minmax"), Job("modelopt", "minmax"), Job("modelopt", "entropy")]


def counted_as(job: Job) -> Job:
    """Return the job whose run of many samples represents a job: methods with histograms keep the same data, and differ only at the end."""
    if job.method.endswith("/8"):
        return Job("optkit", "entropy/8")
    return Job("optkit", "entropy") if job.method in ("percentile", "mse") else job


def main() -> int:
    """Measure, print the table, write it; 1 when a target is missed, 2 when the time limit was reached first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few samples, one round: does it work?")
    parser.add_argument("--part", choices=("time", "memory"), help="measure this alone, and write no result")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", default="", help="only those whose name contains this text, such as 'optkit'")
    parser.add_argument("--peer-python", help="an interpreter that has Olive and modelopt")
    parser.add_argument("--work", type=Path, help="store the single runs here, and continue from them")
    parser.add_argument("--limit-s", type=float, default=1e6, help="start no run after this number of seconds")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "calibration", help="without suffix")
    options = parser.parse_args()
    timed, large, rounds = ((16,), 64, 1) if options.quick else (TIMED, LARGE, options.rounds)
    jobs = [*OURS, *RUNTIME, *(PEERS if options.peer_python else [])]
    jobs = [job for job in jobs if options.jobs in str(job)]
    with tempfile.TemporaryDirectory(prefix="calibration-") as temporary:
        work = (options.work or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        runs = Runs(work, options.peer_python or sys.executable, options.limit_s)
        try:
            if options.part != "memory":
                _time(runs, jobs, timed, rounds)
            if options.part != "time":
                _memory(runs, jobs, large)
        except OutOfTimeError:
            print("the time limit is reached; call it again to go on", file=sys.stderr)
            return 2
        if options.part:
            return 0
        versions = runs.versions()
        series = [_series(runs, job, timed, large, rounds) for job in jobs]
        ranges = compared_ranges({str(job): runs.between_floors(job, timed[0], 0)["ranges"] for job in jobs})
    found = document(series, ranges, rounds, versions)
    write(found, options.output)
    print(table(found))
    return 1 if found["missed"] else 0


def _time(runs: Runs, jobs: list[Job], sizes: tuple[int, ...], rounds: int) -> None:
    """Measure all jobs one after the other, as often as there are rounds."""
    for samples in sizes:
        for number in range(rounds):
            for job in jobs if number == 0 else [job for job in jobs if job in OURS]:
                found = runs.between_floors(job, samples, number)
                print(f"{job!s:32} {samples:5} samples, round {number + 1}: {found['seconds']:.1f} s", file=sys.stderr)


def _memory(runs: Runs, jobs: list[Job], samples: int) -> None:
    for job in dict.fromkeys(counted_as(job) for job in jobs):
        if job in OURS:
            found = runs.alone(job, samples)
            print(f"{job!s:32} {samples:5} samples: {found['peak_mib']:.0f} MiB", file=sys.stderr)


def _series(runs: Runs, job: Job, timed: tuple[int, ...], large: int, rounds: int) -> dict[str, Any]:
    """Return all measurements of a job."""
    times = [_point(runs, job, samples, rounds) for samples in timed]
    peaks = {point["samples"]: point["peak_mib"] for point in times}
    found = {"job": str(job), "tool": job.tool, "method": job.method, "times": times, "large": large}
    if job in OURS:
        run = runs.alone(counted_as(job), large)
        within = {int(count): peak for count, peak in run["peaks_mib"].items() if int(count) >= timed[0]}
        peaks[large] = run["peak_mib"]
        found |= {
            "large_run": str(counted_as(job)),
            "peaks_within_mib": within,
            "slope_mib": (run["peak_mib"] - within[timed[0]]) / (large - timed[0]),
        }
    elif len(timed) > 1:
        slope = (peaks[timed[-1]] - peaks[timed[0]]) / (timed[-1] - timed[0])
        found |= {"slope_mib": slope, "not_run_mib": peaks[timed[-1]] + slope * (large - timed[-1])}
    floor_mib = statistics.median(point["floor_mib"] for point in times)
    return found | {"peaks_mib": peaks, "memory_ratio": max(peaks.values()) / floor_mib}


def _point(runs: Runs, job: Job, samples: int, rounds: int) -> dict[str, Any]:
    """Return a job's ratios to the floors before and after it, and its memory."""
    found = [runs.between_floors(job, samples, number) for number in range(rounds if job in OURS else 1)]
    floors = [floor for run in found for floor in run["floors"]]

    def ratios(key: str) -> list[float]:
        return [2 * run[key] / sum(floor[key] for floor in run["floors"]) for run in found]

    return {
        "samples": samples,
        "time_ratio": statistics.median(ratios("seconds")),
        "time_ratios": ratios("seconds"),
        "cpu_ratio": statistics.median(ratios("cpu_seconds")),
        "cpu_ratios": ratios("cpu_seconds"),
        "seconds": [run["seconds"] for run in found],
        "floor_seconds": [floor["seconds"] for floor in floors],
        "peak_mib": statistics.median(run["peak_mib"] for run in found),
        "floor_mib": statistics.median(floor["peak_mib"] for floor in floors),
        "loads": [run["load"] for run in found],
    }


if __name__ == "__main__":
    sys.exit(main())
