"""The results as Markdown: a short table first, then every task."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from int8_accuracy.frontier import Point, beaten

Result = dict[str, Any]
TARGET_SPEED, TARGET_COSINE, TARGET_COSINE_SPEED = 3.0, 0.993, 2.8
SETTINGS = ((1, 1), (1, 8), (2, 1), (2, 8))  # threads, batch
OPTKIT = "optkit"


def markdown(results: Result) -> str:
    """Return the whole report."""
    tasks: Mapping[str, Result] = results["tasks"]
    parts = [
        "# INT8: what is left of the accuracy, and what it gains",
        "",
        "Written by `benchmarks/int8_accuracy.py`. Every tool with its defaults, on the same FP32 file and the same calibration samples; judged on "
        "other samples against the FP32 file in ONNX Runtime. SQNR is the power of FP32's outputs over that of the error; agreement the "
        "share of samples for which the decision (class, nearest neighbour) is FP32's. Speed is the ratio to FP32 in ONNX Runtime, measured in "
        "alternating blocks, and in brackets its 95 % interval. A tool is beaten by another that is better "
        "in one of both, by more than 0.1 dB or than the intervals, and no worse in the other; by FP32 where INT8 is not faster.",
        "",
        *_summary(tasks),
        *(line for name, task in tasks.items() for line in _task(name, task)),
        *_facts(results),
    ]
    return "\n".join(parts) + "\n"


def summary(results: Result) -> str:
    """Return the short table and the targets."""
    return "\n".join(_summary(results["tasks"]))


def _summary(tasks: Mapping[str, Result]) -> Iterator[str]:
    yield from (
        "## In short",
        "",
        "| task | tool | SQNR dB | speed, 1 thread, batch 1 | beaten by |",
        "|---|---|---|---|---|",
    )
    for name, task in tasks.items():
        who = _beaten(task, 1, 1)
        for tool, made in _judged(task):
            cell = _speed(task, tool, 1, 1)
            yield f"| {name} | {tool} | {_number(made['sqnr_db'], '.1f')} | {cell} | {who.get(tool, '')} |"
    yield from ("", "| target | measured | reached |", "|---|---|---|")
    yield from (f"| {what} | {found} | {'yes' if good else 'NO'} |" for what, found, good in targets(tasks))
    yield ""


def targets(tasks: Mapping[str, Result]) -> list[tuple[str, str, bool]]:
    """Return what was to be reached: (target, what was measured, whether it holds); what was not measured is left out."""
    found: list[tuple[str, str, bool]] = []
    best = _best_pick(tasks.get("resnet18"))
    if best:
        tool, ratio, _ = best
        found.append(
            (f"ResNet-18 at {TARGET_SPEED:g}x or more, 1 thread", f"{tool}: {ratio:.2f}x", ratio >= TARGET_SPEED)
        )
    best = _best_pick(tasks.get("minilm"), TARGET_COSINE)
    if "minilm" in tasks and tasks["minilm"].get("speed"):
        tool, ratio, cosine = best or ("none", 0.0, 0.0)
        what = f"MiniLM at cosine {TARGET_COSINE:g} or more and {TARGET_COSINE_SPEED:g}x or more, 1 thread"
        found.append((what, f"{tool}: {cosine:.4f}, {ratio:.2f}x", ratio >= TARGET_COSINE_SPEED))
    for name, task in tasks.items():
        for threads, batch in SETTINGS if task.get("speed") else ():
            who = beaten(_points(task, threads, batch))
            behind = [f"{tool} by {other}" for tool, other in who.items() if _ours(tool) and not _ours(other)]
            unbeaten = [tool for tool, _ in _judged(task) if _ours(tool) and tool not in who]
            what = f"{name}: a pick of optkit on the frontier, {threads} thread{'s' * (threads > 1)}, batch {batch}"
            said = (", ".join(unbeaten) or "none") + (f" (beaten: {'; '.join(behind)})" if behind else "")
            found.append((what, said, bool(unbeaten)))
    return found


def _best_pick(task: Result | None, cosine: float = -1.0) -> tuple[str, float, float] | None:
    """Return optkit's fastest ONNX file at one thread, batch 1, that keeps a cosine: (tool, ratio, cosine)."""
    if not task or not task.get("speed"):
        return None
    picks = [
        (tool, found["ratio"], made["cosine"])
        for tool, made in _judged(task)
        if tool.split()[0] == OPTKIT and (made["cosine"] or -1) >= cosine
        if (found := _speed_up(task, tool, 1, 1))
    ]
    return max(picks, key=lambda pick: pick[1], default=None)


def _ours(tool: str) -> bool:
    return tool.startswith(OPTKIT)


def _judged(task: Result) -> list[tuple[str, Result]]:
    return [(tool, made) for tool, made in task["made"].items() if made["exit"] == 0]


def _points(task: Result, threads: int, batch: int) -> list[Point]:
    return [
        Point(tool, made["sqnr_db"], found["low"], found["high"])
        for tool, made in _judged(task)
        if made["sqnr_db"] is not None and (found := _speed_up(task, tool, threads, batch))
    ]


def _beaten(task: Result, threads: int, batch: int) -> dict[str, str]:
    """Return who beats a tool; FP32 itself where nobody else does and INT8 is not faster."""
    points = _points(task, threads, batch)
    return beaten([*points, Point("FP32", float("inf"), 1.0, 1.0)])


def _speed_up(task: Result, tool: str, threads: int, batch: int) -> Result | None:
    wanted = (tool, threads, batch)
    return next((s for s in task.get("speed", ()) if (s["tool"], s["threads"], s["batch"]) == wanted), None)


def _speed(task: Result, tool: str, threads: int, batch: int) -> str:
    found = _speed_up(task, tool, threads, batch)
    return f"{found['ratio']:.2f}x ({found['low']:.2f}-{found['high']:.2f})" if found else ""


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _task(name: str, task: Result) -> Iterator[str]:
    score = task["score_name"] or "score"
    yield from (f"## {name}", "", f"{task['what']}. FP32: {score} {_number(task['fp32']['score'], '.4f')}, "
                f"{task['fp32']['size_bytes'] / 1e6:.3g} MB{_fp32_speed(task)}.", "")  # fmt: skip
    columns = [f"{threads} thread{'s' * (threads > 1)}, batch {batch}" for threads, batch in SETTINGS]
    heads = ["tool", score, "agreement", "cosine", "SQNR dB", "MB", *columns, "seconds to make"]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for tool, made in _judged(task):
        numbers = [
            _number(made["score"], ".4f"), _number(made["agreement"], ".4f"), _number(made["cosine"], ".5f"),
            _number(made["sqnr_db"], ".1f"), f"{made['size_bytes'] / 1e6:.3g}",
        ]  # fmt: skip
        speeds = [_speed(task, tool, threads, batch) for threads, batch in SETTINGS]
        yield f"| {' | '.join([tool, *numbers, *speeds, format(made['seconds'], '.0f')])} |"
    yield ""
    for threads, batch in SETTINGS if task.get("speed") else ():
        who = _beaten(task, threads, batch)
        on = [tool for tool in [*(t for t, _ in _judged(task)), "FP32"] if tool not in who]
        yield f"- frontier of SQNR against speed, {threads} thread{'s' * (threads > 1)}, batch {batch}: {', '.join(on)}"
    yield from (f"- {tool} wrote no file: {made['message']}" for tool, made in task["made"].items() if made["exit"])
    yield ""


def _fp32_speed(task: Result) -> str:
    times = [f"{f['p50_ms']:.3g} ms at {f['threads']} x {f['batch']}" for f in task.get("fp32_speed", ())]
    return f"; p50 (threads x batch) {', '.join(times)}; load before {task['load_before']:.1f}" if times else ""


def _facts(results: Result) -> Sequence[str]:
    m = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    quick = ["", "**A quick run: few samples of time, numbers for nobody.**"] if results["quick"] else []
    return [
        f"{m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB, VNNI {m['vnni']}, {m['system']}; Python {m['python']}, {versions}.",
        *quick,
    ]
