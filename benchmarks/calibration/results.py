"""The targets of benchmarks/calibration.py, and its results as text."""

import json
import statistics
from pathlib import Path
from typing import Any

TARGET_MEMORY, TARGET_SLOPE_MIB = 1.6, 0.02
TARGET_TIME = {
    "minmax": 1.4, "moving-average": 1.4, "percentile": 2.5, "entropy": 2.5, "mse": 2.5,
    "percentile/8": 1.5, "entropy/8": 1.5, "mse/8": 1.5,
}  # fmt: skip
# Ranges of one method by two tools, as shares of the width of a range. The graphs are optimized differently, so sums are rounded
# differently; a percentile lies within a bin of ONNX Runtime's 2048. Its entropy has 128 bins and gives min-max's ranges: not the same method.
TOLERANCE = {"minmax": 1e-4, "percentile": 2e-3}
_NOISE_MIB = 40  # the difference between two runs of one process

Series = dict[str, Any]


def compared_ranges(ranges: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """Compare the ranges of optkit with those of ONNX Runtime's calibrators, for the methods that both define in the same way."""
    found = []
    for method, tolerance in TOLERANCE.items():
        ours, right = ranges.get(f"optkit {method}"), ranges.get(f"onnxruntime {method}")
        if ours is None or right is None:
            continue
        off = {name: _distance(ours[name], right[name]) for name in sorted(set(ours) & set(right))}
        worst = max(off, key=off.__getitem__)
        found.append(
            {
                "method": method,
                "tensors": len(off),
                "worst_tensor": worst,
                "worst_share_of_width": off[worst],
                "tolerance": tolerance,
                "equal": off[worst] <= tolerance,
            }
        )
    return found


def _distance(mine: list[float], right: list[float]) -> float:
    """Return the larger distance of two ends as a share of the width; optkit's ranges always contain zero."""
    low, high = min(right[0], 0), max(right[1], 0)
    return max(abs(mine[0] - low), abs(mine[1] - high)) / max(high - low, 1e-12)


def document(
    series: list[Series], ranges: list[dict[str, Any]], rounds: int, versions: dict[str, dict[str, str]]
) -> dict[str, Any]:
    """Return all results as one document."""
    from optkit.benchmark import this_machine

    missed = [f"{one['job']}: {fault}" for one in series if one["tool"] == "optkit" for fault in _faults(one)]
    missed += [f"ranges by {r['method']} differ by {r['worst_share_of_width']:.1e}" for r in ranges if not r["equal"]]
    return {
        "schema": "optkit/bench-calibration/2",
        "machine": this_machine().model_dump(),
        "versions": versions,
        "rounds": rounds,
        "targets": {"time": TARGET_TIME, "memory": TARGET_MEMORY, "slope_mib": TARGET_SLOPE_MIB},
        "series": series,
        "ranges": ranges,
        "missed": missed,
    }


def _faults(series: Series) -> list[str]:
    """Return the targets that an optkit series misses."""
    limit = TARGET_TIME[series["method"]]
    faults = [
        f"time {point['time_ratio']:.2f}x at {point['samples']} samples, target {limit}"
        for point in series["times"]
        if not point["time_ratio"] <= limit
    ]
    if not series["memory_ratio"] <= TARGET_MEMORY:
        faults.append(f"memory {series['memory_ratio']:.2f}x, target {TARGET_MEMORY}")
    if not series["slope_mib"] < TARGET_SLOPE_MIB:
        faults.append(f"{series['slope_mib']:.3f} MiB a sample, target {TARGET_SLOPE_MIB}")
    return faults


def write(found: dict[str, Any], output: Path) -> None:
    """Write a document as JSON and as Markdown."""
    output.parent.mkdir(exist_ok=True)
    output.with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n")
    output.with_suffix(".md").write_text(table(found))


def table(found: dict[str, Any]) -> str:
    """Return a document as Markdown."""
    machine, series = found["machine"], found["series"]
    loads = [load for one in series for point in one["times"] for load in point["loads"]]
    timed = [point["samples"] for point in series[0]["times"]]
    sizes = [*timed, series[0]["large"]]
    heads = [f"time / floor at {n}" for n in timed] + [f"processor at {timed[-1]}"] + [f"MiB at {n}" for n in sizes]
    lines = [
        "# What calibration costs",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; median of {found['rounds']} rounds, peers of one; beside other work: "
        f"load {min(loads):.1f} to {max(loads):.1f}.",
        "",
        "ResNet-18 at 3x224x224, one sample a feed. Time and processor time are ratios to the same forward passes in one session; memory is "
        "the peak of the process, and the slope in MiB a sample.",
        "",
        "| | " + " | ".join(heads) + " | slope | target |",
        "|---" * (len(heads) + 3) + "|",
        *(_row(one, sizes) for one in series),
    ]
    named = {
        tool: ", ".join(f"{name} {v}" for name, v in found["versions"][tool].items()) for tool in ("optkit", "peers")
    }
    lines += ["", f"Versions: {named['optkit']}; Olive and modelopt beside {named['peers']}."]
    floors = [point["floor_mib"] for one in series if one["tool"] == "optkit" for point in one["times"]]
    lines += ["", f"The floor's peak is {statistics.median(floors):.0f} MiB."] if floors else []
    for r in found["ranges"]:
        verdict = "equal" if r["equal"] else "differ"
        lines.append(
            f"Ranges by {r['method']}: {verdict} to ONNX Runtime's for {r['tensors']} tensors, at most "
            f"{r['worst_share_of_width']:.1e} of a width apart (tolerance {r['tolerance']:g})."
        )
    lines += ["", *(f"Missed: {fault}." for fault in found["missed"])] if found["missed"] else []
    return "\n".join(lines) + "\n"


def _row(series: Series, sizes: list[int]) -> str:
    cells = [f"{point['time_ratio']:.2f}" for point in series["times"]]
    cells += [f"{series['times'][-1]['cpu_ratio']:.2f}"]
    cells += [_memory(series, n) for n in sizes]
    target = f"{TARGET_TIME[series['method']]}x" if series["tool"] == "optkit" else ""
    return f"| {series['job']} | {' | '.join(cells)} | {_slope(series)} | {target} |"


def _memory(series: Series, samples: int) -> str:
    if samples in series["peaks_mib"]:
        stands = samples == series["large"] and series["large_run"] != series["job"]
        return f"{series['peaks_mib'][samples]:.0f}" + (f" ({series['large_run']})" if stands else "")
    return f"not run, about {series['not_run_mib']:.0f}" if _stands_out(series) else "not run"


def _slope(series: Series) -> str:
    """Return the slope; between two runs, only if it is larger than the noise."""
    if "peaks_within_mib" in series:
        return f"{series['slope_mib']:.3f}"
    return f"{series['slope_mib']:.1f}" if _stands_out(series) else "in the noise"


def _stands_out(series: Series) -> bool:
    if "slope_mib" not in series:
        return False
    few, many = min(series["peaks_mib"]), max(series["peaks_mib"])
    return bool(series["slope_mib"] * (many - few) > _NOISE_MIB)
