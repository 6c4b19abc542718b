"""The results of the zoo as tables."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from export_zoo.process import TIME_LIMIT

Line = Mapping[str, Any]

QUESTIONS = {
    "checker": "checker",
    "opset": "opset as asked",
    "dynamic": "dims dynamic",
    "corners": "right at corners",
    "batched": "right when batched",
}


def right(line: Line) -> bool:
    """Whether a file was exported and passes every check."""
    return bool(line["exported"]) and not faults(line)


def wrong(line: Line) -> bool:
    """Whether a wrong file was exported as correct."""
    return bool(line["exported"]) and bool(faults(line))


def faults(line: Line) -> list[str]:
    """Return the judge's findings as text."""
    return [f"{QUESTIONS[name]}: {fault}" for name, fault in (line["verdict"] or {}).items() if fault]


def one_line(line: Line) -> str:
    """Return an attempt as a line of the progress."""
    found = "right" if right(line) else "WRONG " + "; ".join(faults(line)) if wrong(line) else "no: " + line["message"]
    return f"{line['model']:42} {line['tool']:12} {line['seconds']:6.1f} s {line['peak_mib']:5} MiB  {found[:200]}"


def markdown(lines: Sequence[Line]) -> str:
    """Return the whole report: the two numbers, a table by tool, the refusals and wrong files, and a table by model."""
    facts = [line for line in lines if "machine" in line]
    attempts = [line for line in lines if "model" in line]
    parts = ["# The export zoo\n", "Written by `benchmarks/export_zoo.py --report` from `export_zoo.jsonl`.\n"]
    for opset in sorted({line["opset"] for line in attempts}, reverse=True):
        parts += _by_tool([line for line in attempts if line["opset"] == opset], opset)
    parts += _facts(facts, attempts)
    main = [line for line in attempts if line["opset"] == max(line["opset"] for line in attempts)]
    parts += _missed(main)
    parts += _wrong_files(attempts)
    parts += _by_model(main)
    return "\n".join(parts)


def _by_tool(lines: Sequence[Line], opset: int) -> list[str]:
    tools = list(dict.fromkeys(line["tool"] for line in lines))
    tried = {line["model"] for line in lines if line["tool"] == "optkit"}
    possible = {line["model"] for line in lines if right(line)} & tried
    optkit = {line["model"] for line in lines if line["tool"] == "optkit" and right(line)}
    bad = {tool: sum(wrong(line) for line in lines if line["tool"] == tool) for tool in tools}
    share = len(optkit) / len(possible) if possible else 0.0
    parts = [
        f"**Opset {opset}, {len(tried)} models. optkit exports and proves {len(optkit)} of the {len(possible)} that any tool can do "
        f"rightly: {share:.1%}. Wrong files handed over as good: {', '.join(f'{tool} {n}' for tool, n in bad.items())}.**\n",
        f"| tool | models | exported | {' | '.join(QUESTIONS.values())} | all right | wrong | seconds, median | CPU seconds, median | peak MiB, median |",
        f"|---|{'---|' * (len(QUESTIONS) + 7)}",
    ]
    for tool in tools:
        mine = [line for line in lines if line["tool"] == tool]
        given = [line for line in mine if line["exported"]]
        passed = [str(sum(not line["verdict"][question] for line in given)) for question in QUESTIONS]
        middle = [
            statistics.median(line[key] for line in given) if given else 0
            for key in ("seconds", "cpu_seconds", "peak_mib")
        ]
        parts.append(
            f"| {tool} | {len(mine)} | {len(given)} | {' | '.join(passed)} | {sum(map(right, mine))} | {bad[tool]} "
            f"| {middle[0]:.1f} | {middle[1]:.1f} | {middle[2]:.0f} |"
        )
    return [*parts, ""]


def _facts(facts: Sequence[Line], attempts: Sequence[Line]) -> list[str]:
    parts = [
        "Seconds and memory are those of the whole process, over the files handed over; optkit's hold its proof. Up to two\n"
        "processes at a time, one thread each; on a machine that others use too, CPU seconds compare better than those of the clock.\n"
        "The judge: `onnx.checker` with full shape inference, the opset asked for, each declared dimension dynamic, equal to\n"
        "eager PyTorch (atol 1e-4, rtol 1e-3) at min, opt, max and an odd point of each dimension with two sets of values, and\n"
        "f([a, b]) = [f(a), f(b)] where the inputs share a batch.\n"
    ]
    for line in facts:
        m = line["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in line["versions"].items())
        parts.append(
            f"- {m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB, {m['system']}, Python {line['python']}; {versions}"
        )
    revisions = sorted({line["optkit"] for line in attempts if "optkit" in line})
    return [*parts, f"- optkit, by the hash of its code: {', '.join(revisions)}", ""]


def _missed(lines: Sequence[Line]) -> list[str]:
    parts = ["## What optkit did not export, although another tool did it rightly\n"]
    for line in lines:
        others = [o["tool"] for o in lines if o["model"] == line["model"] and right(o)]
        if line["tool"] == "optkit" and not right(line) and others:
            parts.append(
                f"- `{line['model']}` ({', '.join(others)}): {_cell(line['message'] or '; '.join(faults(line)))}"
            )
    return [*parts, "" if len(parts) > 1 else "None.\n"]


def _wrong_files(lines: Sequence[Line]) -> list[str]:
    parts = [
        "## Wrong files handed over as good\n",
        "| model | tool | opset | what the judge found |",
        "|---|---|---|---|",
    ]
    parts += [
        f"| {line['model']} | {line['tool']} | {line['opset']} | {_cell('; '.join(faults(line)))} |"
        for line in lines
        if wrong(line)
    ]
    return [*parts, ""]


def _by_model(lines: Sequence[Line]) -> list[str]:
    tools = list(dict.fromkeys(line["tool"] for line in lines))
    found = {(line["model"], line["tool"]): line for line in lines}
    parts = [
        "## Every model\n",
        "`right`: handed over and right in every way, with CPU seconds and peak MiB. `WRONG`: handed over and not right. `no`: refused or failed.\n",
        f"| model | {' | '.join(tools)} |",
        f"|---|{'---|' * len(tools)}",
    ]
    for model in dict.fromkeys(line["model"] for line in lines):
        cells = [_outcome(found.get((model, tool))) for tool in tools]
        parts.append(f"| {model} | {' | '.join(cells)} |")
    return [*parts, ""]


def _outcome(line: Line | None) -> str:
    if line is None:
        return ""
    word = "right" if right(line) else "WRONG" if wrong(line) else "time limit" if line["exit"] == TIME_LIMIT else "no"
    return f"{word} {line['cpu_seconds']:.1f} s, {line['peak_mib']}"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")[:400]
