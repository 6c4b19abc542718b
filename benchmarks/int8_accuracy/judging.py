"""Evaluate a file: its outputs on the evaluation data, and its speed together with the other files of its task."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from int8_accuracy.tasks import Feed, Task

BATCHES = (1, 8)
SHORTEST_S, LONGEST_S = 25.0, 50.0  # of the blocks of one task at one number of threads: three times the first one
HOPELESS, ROUGHLY = 0.6, 1.25

Result = dict[str, Any]


def open_file(file: Path, task: Task) -> Any:
    """Return a file as an artifact with the dims of its task."""
    from optkit.artifact.tensors import DimRange
    from optkit.pytorch.source import open_artifact

    return open_artifact(file, {name: DimRange.parse(text) for name, text in task.dims.items()})


def outputs(file: Path, task: Task, feeds: Sequence[Feed]) -> np.ndarray:
    """Return the outputs of a file for all feeds, row by row."""
    from optkit.runners import open_runner

    with open_runner(open_file(file, task)) as runner:
        return np.concatenate([runner.infer(feed)[task.output] for feed in feeds])


def speed(task: Task, folder: Path, files: dict[str, Path], threads: int, *, quick: bool) -> Result:
    """Measure all files of a task in alternating blocks.

    One block of all comes first, and those that it finds at less than 0.6 times FP32's speed stay with that: they would take most of the
    time, and their interval is put at a fifth to either side.

    Args:
        task: gives the contract.
        folder: has the calibration samples, which are the values.
        files: tool -> its file; FP32 is among them, and what the others are compared with.
        threads: of every runtime.
        quick: two blocks only.

    Returns:
        speed, the ratios to FP32; fp32_speed; load_before.
    """
    from optkit.benchmark import BenchSettings, load_average, measure
    from optkit.data import Feeds, Samples

    artifacts = {tool: open_file(file, task) for tool, file in files.items()}
    reference = artifacts["FP32"]
    samples = Samples(reference.inputs, reference.dims, Feeds(str(folder / "calibration"), reference.inputs))
    load = load_average()

    def measured(tools: Sequence[str], **length: float) -> Any:
        settings = BenchSettings(batches=BATCHES, threads=threads, drop_s=0.01, block_calls=3, **length)
        found = measure({tool: artifacts[tool] for tool in tools}, samples, settings, "FP32")
        if found.interrupted:
            raise KeyboardInterrupt
        return found

    began = time.monotonic()
    rough = measured(list(artifacts), min_blocks=1, max_blocks=1)
    best = {
        tool: max((s.ratio for s in rough.speed_ups if s.candidate == tool), default=0.0)
        for tool in artifacts
        if tool != "FP32"
    }
    close = [tool for tool, ratio in best.items() if ratio >= HOPELESS]
    limit_s = min(max(3 * (time.monotonic() - began), SHORTEST_S), LONGEST_S)
    blocks = {"min_blocks": 2, "max_blocks": 2} if quick else {"time_limit_s": limit_s}
    careful = measured(["FP32", *close], **blocks)
    rows = [(s, s.low, s.high) for s in careful.speed_ups if s.low is not None]
    rows += [(s, s.ratio / ROUGHLY, s.ratio * ROUGHLY) for s in rough.speed_ups if s.candidate not in close]
    return {
        "load_before": load,
        "fp32_speed": [
            {"threads": threads, "batch": m.batch, "p50_ms": m.p50_ms, "blocks": len(careful.order)}
            for m in careful.measurements
            if m.artifact == "FP32"
        ],
        "speed": [
            {"tool": s.candidate, "threads": threads, "batch": s.batch, "ratio": s.ratio, "low": low, "high": high}
            for s, low, high in rows
        ],
    }
