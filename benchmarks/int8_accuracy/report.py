"""The results as Markdown: a short table first, then every task."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from int8_accuracy.frontier import NO_DIFFERENCE_DB, Point, beaten, out_of_reach

Result = dict[str, Any]
TARGET_SPEED, TARGET_COSINE, TARGET_COSINE_SPEED = 3.0, 0.993, 2.8
SETTINGS = ((1, 1), (1, 8), (2, 1), (2, 8))  # threads, batch
OPTKIT = "optkit"
MEASURES = {
    "sqnr_db": ("SQNR", NO_DIFFERENCE_DB),
    "agreement": ("agreement", 0.01),
}  # and the size that counts as no difference


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
        "in one of both, by more than 0.1 dB or than the intervals, and no worse in the other; by FP32 where INT8 is not faster. "
        "optkit lies below the peers' frontier where a peer's file is on that frontier and no file of optkit, nor FP32, is as good and as fast.",
        "",
        *_machine(results),
        *([f"**{results['note']}**", ""] if results.get("note") else []),
        *_summary(tasks, results["machine"]["vnni"]),
        *(line for name, task in tasks.items() for line in _task(name, task)),
        *_methods(tasks),
        *_facts(results),
    ]
    return "\n".join(parts) + "\n"


def summary(results: Result) -> str:
    """Return the short table and the targets."""
    return "\n".join(_summary(results["tasks"], results["machine"]["vnni"]))


def _machine(results: Result) -> Iterator[str]:
    """Return a note on the effect of the processor on the speeds."""
    if results["machine"]["vnni"] is False:
        yield from (
            "**This processor has no VNNI**, the instructions that multiply 8-bit numbers four at a time. What INT8 gains here is what AVX2 gives, "
            "and weights get 7 bits where activations are unsigned. The speeds that are expected of INT8 hold where VNNI is.",
            "",
        )


def _summary(tasks: Mapping[str, Result], vnni: bool | None) -> Iterator[str]:
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
    no = "NO" if vnni is not False else "NO; the processor has no VNNI"
    yield from (f"| {what} | {found} | {'yes' if good else no} |" for what, found, good in targets(tasks))
    yield from ("", "| frontier of accuracy against speed | optkit's pick | files of peers out of reach | optkit |",
                "|---|---|---|---|")  # fmt: skip
    for what, pick, missed, good in frontiers(tasks):
        yield f"| {what} | {pick} | {missed} | {'on or above' if good else 'BELOW'} |"
    yield ""


def targets(tasks: Mapping[str, Result]) -> list[tuple[str, str, bool]]:
    """Return the target speeds: (target, measurement, whether it is reached); a target without measurement is left out."""
    found: list[tuple[str, str, bool]] = []
    best = _best_pick(tasks.get("resnet18"))
    if best:
        tool, ratio, _ = best
        what = f"ResNet-18 at {TARGET_SPEED:g}x or more, 1 thread"
        found.append((what, f"{tool}: {ratio:.2f}x", ratio >= TARGET_SPEED))
    if "minilm" in tasks and tasks["minilm"].get("speed"):
        tool, ratio, cosine = _best_pick(tasks["minilm"], TARGET_COSINE) or ("none", 0.0, 0.0)
        what = f"MiniLM at cosine {TARGET_COSINE:g} or more and {TARGET_COSINE_SPEED:g}x or more, 1 thread"
        found.append((what, f"{tool}: {cosine:.4f}, {ratio:.2f}x", ratio >= TARGET_COSINE_SPEED))
    return found


def frontiers(tasks: Mapping[str, Result]) -> list[tuple[str, str, str, bool]]:
    """Return, for each task, setting and measure: where; what beats optkit's own pick; the peers' files out of optkit's reach; none of them."""
    found: list[tuple[str, str, str, bool]] = []
    for name, task in tasks.items():
        for threads, batch in _settings(task):
            for measure, (title, margin) in MEASURES.items():
                points = _points(task, threads, batch, measure)
                own, others = ([p for p in points if _ours(p.tool) is ours] for ours in (True, False))
                if not own:
                    continue
                exact = Point("FP32", float("inf"), 1.0, 1.0)  # which every tool has
                missed = out_of_reach([*own, exact], others, margin)
                pick = [p for p in own if p.tool == OPTKIT]
                behind = beaten([*pick, *others], margin).get(OPTKIT) if pick else None
                said = f"beaten by {behind}" if behind else "not beaten" if pick else "refused"
                what = f"{name}: {title}, {threads} thread{'s' * (threads > 1)}, batch {batch}"
                found.append((what, said, ", ".join(missed), not missed))
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
    """Return the files, sorted by SQNR, the best first."""
    found = [(tool, made) for tool, made in task["made"].items() if made["exit"] == 0]
    return sorted(found, key=lambda one: -(one[1]["sqnr_db"] or 0.0))


def _settings(task: Result) -> list[tuple[int, int]]:
    """Return the settings that were measured."""
    known = {(s["threads"], s["batch"]) for s in task.get("speed", ())}
    return [setting for setting in SETTINGS if setting in known]


def _points(task: Result, threads: int, batch: int, measure: str = "sqnr_db") -> list[Point]:
    return [
        Point(tool, made[measure], found["low"], found["high"])
        for tool, made in _judged(task)
        if made[measure] is not None and (found := _speed_up(task, tool, threads, batch))
    ]


def _beaten(task: Result, threads: int, batch: int) -> dict[str, str]:
    """Return the tools that beat a tool; FP32 if no other does and INT8 is not faster."""
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
    heads = ["tool, by SQNR", score, "agreement", "(rank)", "cosine", "SQNR dB", "MB", *columns, "seconds to make"]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for tool, made in _judged(task):
        numbers = [
            _number(made["score"], ".4f"), _number(made["agreement"], ".4f"), _rank(task, made), _number(made["cosine"], ".5f"),
            _number(made["sqnr_db"], ".1f"), f"{made['size_bytes'] / 1e6:.3g}",
        ]  # fmt: skip
        speeds = [_speed(task, tool, threads, batch) for threads, batch in SETTINGS]
        yield f"| {' | '.join([tool, *numbers, *speeds, format(made['seconds'], '.0f')])} |"
    yield ""
    for threads, batch in _settings(task):
        who = _beaten(task, threads, batch)
        on = [tool for tool in [*(t for t, _ in _judged(task)), "FP32"] if tool not in who]
        yield f"- frontier of SQNR against speed, {threads} thread{'s' * (threads > 1)}, batch {batch}: {', '.join(on)}"
    for tool, made in _judged(task):
        if made.get("said"):
            yield f"- {tool}: {'; '.join(made['said'])}"
    yield from (f"- {tool} wrote no file: {made['message']}" for tool, made in task["made"].items() if made["exit"])
    yield ""


def _methods(tasks: Mapping[str, Result]) -> Iterator[str]:
    known = {name: task["methods"] for name, task in tasks.items() if task.get("methods")}
    if not known:
        return
    yield from (
        "## What else may help",
        "",
        "optkit's static INT8 (U8S8 in Q/DQ by min-max, 7-bit weights, no types chosen) with one thing changed, judged as above. SmoothQuant is "
        "optkit's own (`smooth`), because no kept library has it for ONNX beside the current onnx, numpy and ONNX Runtime: neural-compressor has "
        "had no ONNX since 3.0, and its 2.6, which ONNX Runtime's option `SmoothQuant` imports, needs numpy 1; amd-quark 0.13 needs onnx 1.22 "
        "or older, aimet-onnx brings another ONNX Runtime and torchvision, modelopt has it for PyTorch alone. Bias correction (the mean of "
        "what rounded weights add to each channel, taken off its bias) and cross-layer equalisation (between convolutions with a Relu "
        "between them) are in this benchmark alone.",
        "",
        "| task | method | SQNR dB | to static | cosine | agreement |",
        "|---|---|---|---|---|---|",
    )
    for name, rows in known.items():
        plain = rows[0]["sqnr_db"]
        for row in rows:
            gain = "-" if None in (plain, row["sqnr_db"]) else f"{row['sqnr_db'] - plain:+.1f}"
            numbers = [
                _number(row["sqnr_db"], ".1f"),
                gain,
                _number(row["cosine"], ".5f"),
                _number(row["agreement"], ".4f"),
            ]
            yield f"| {name} | {row['method']} | {' | '.join(numbers)} |"
    yield ""


def _rank(task: Result, made: Result) -> str:
    """Return the rank by agreement; equal ones share it."""
    if made["agreement"] is None:
        return "-"
    return str(1 + sum((other["agreement"] or 0.0) > made["agreement"] for _, other in _judged(task)))


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
