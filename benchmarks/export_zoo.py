"""Export real architectures with optkit and other tools: which models each tool exports, and which exported files are wrong.

    python benchmarks/export_zoo.py                                # everything that is not in the results yet
    python benchmarks/export_zoo.py --only 'timm/*' --limit 5      # a part of it
    python benchmarks/export_zoo.py --again optkit                 # one tool again, after a change
    python benchmarks/export_zoo.py --opset 17 --only 'own/*'      # another opset
    python benchmarks/export_zoo.py --report                       # write the tables of the results

Each tool exports each model in a separate process, one at a time, on one thread, with a time limit; time and peak memory are those of the
whole process. Then a judge, which shares no code with optkit, checks each file of a tool that ended with exit code 0: onnx.checker with full
shape inference, the opset, the dynamic dimensions, equality to eager PyTorch at every declared corner with two sets of values, and
f([a, b]) = [f(a), f(b)].

It also needs timm, transformers, torchvision (any build) and optimum-onnx. optimum-onnx 0.1 cannot be imported with transformers 5: install
transformers 4.57 with `pip install --no-deps --target DIR` and give `--optimum-site DIR`.
"""

import argparse
import fnmatch
import hashlib
import importlib.resources
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from export_zoo import report
from export_zoo.catalog import CASES, Case
from export_zoo.process import TIME_LIMIT, measure, without_torchvision

HERE = Path(__file__).resolve().parent
TOOLS = ("optkit", "dynamo", "torchscript", "optimum")
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime-gpu", "transformers", "timm", "torchvision", "optimum-onnx")

Line = dict[str, Any]  # of the results file: one attempt with its verdict, or the machine's facts


def main() -> int:
    """Run the requested attempts that are missing, or write the report."""
    options = _options()
    if options.report:
        options.results.with_suffix(".md").write_text(report.markdown(_read(options.results)))
        print(options.results.with_suffix(".md").read_text().partition("\n## ")[0])
        return 0
    lines = _read(options.results)
    facts = machine(options.optimum_site)
    if facts not in lines:
        _put(options.results, facts)
    done = {_key(line) for line in lines if "model" in line and line["tool"] != options.again}
    cases = [case for case in CASES.values() if fnmatch.fnmatch(case.name, options.only)]
    started = 0
    for case in cases:
        todo = [tool for tool in options.tools if (case.name, tool, options.opset) not in done and _takes(tool, case)]
        if not todo or started == options.limit:
            continue
        started += 1
        for line in run(case, todo, options.opset, options.time_limit, options.optimum_site):
            _put(options.results, line)
            print(report.one_line(line), flush=True)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="models whose name fits, as in 'timm/*'")
    parser.add_argument("--limit", type=int, default=-1, help="at most so many models in this run")
    parser.add_argument("--tools", type=lambda text: text.split(","), default=list(TOOLS))
    parser.add_argument("--opset", type=int, default=20)
    parser.add_argument("--time-limit", type=float, default=120.0, help="seconds of processor time for one process")
    parser.add_argument("--again", choices=TOOLS, help="make this tool's results of the requested models again")
    parser.add_argument("--optimum-site", type=Path, help="put first on the path of optimum-cli")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "export_zoo.jsonl")
    parser.add_argument("--report", action="store_true", help="write the tables beside the results, and print the top")
    return parser.parse_args()


def run(case: Case, tools: Sequence[str], opset: int, time_limit: float, optimum_site: Path | None) -> list[Line]:
    """Export one model with each tool, then judge the exported files."""
    with tempfile.TemporaryDirectory(prefix="export-zoo-") as folder:
        lines = []
        files: dict[str, Path] = {}
        for tool in tools:
            out = Path(folder) / tool
            out.mkdir()
            line = _attempt(case, tool, out, opset, time_limit, optimum_site)
            file = next(out.glob("*.onnx"), None) if line["exit"] == 0 else None
            line["exported"] = file is not None
            if file:
                files[tool] = file
            lines.append(line)
        verdicts = _judge(case, files, opset)
        for line in lines:
            line["verdict"] = verdicts.get(line["tool"])
    return lines


def _takes(tool: str, case: Case) -> bool:
    return tool != "optimum" or case.optimum_task is not None


def _attempt(case: Case, tool: str, out: Path, opset: int, time_limit: float, optimum_site: Path | None) -> Line:
    """Run one tool on one model and measure the process."""
    environment = _environment()
    if tool == "optimum":
        saved = out / "saved"
        save = [sys.executable, "-m", "export_zoo.attempt", "save", case.name, str(saved)]
        subprocess.run(save, env=environment, check=True, capture_output=True)
        environment["PYTHONPATH"] = os.pathsep.join(
            str(path) for path in (optimum_site, without_torchvision(out)) if path
        )
    found = measure(_command(case, tool, out, opset), environment, out / "log.txt", time_limit)
    line: Line = {"model": case.name, "tool": tool, "opset": opset, "exit": found.code}
    line |= {"seconds": round(found.seconds, 2), "cpu_seconds": round(found.cpu_seconds, 2)}
    line |= {"peak_mib": round(found.peak_mib), "message": _message(found.text, found.code)}
    if tool == "optkit":
        line["optkit"] = _revision()
        line["exporter"] = _between(found.text, "exported by the ", " exporter")
    return line


def _command(case: Case, tool: str, out: Path, opset: int) -> list[str]:
    scripts = Path(sys.executable).parent
    file = str(out / "model.onnx")
    if tool == "optkit":
        command = [str(scripts / "optkit"), "export", "onnx", "export_zoo.factories:build", "-o", file]
        command += ["--set", f"model={case.name}", "--opset", str(opset)]
        for text in case.inputs:
            command += ["--input", text]
        for dim, range_ in case.dims.items():
            command += ["--dim", f"{dim}={':'.join(map(str, range_))}"]
        return command
    if tool == "optimum":
        command = [str(scripts / "optimum-cli"), "export", "onnx", "--model", str(out / "saved")]
        return [*command, "--task", str(case.optimum_task), "--opset", str(opset), "--device", "cpu", str(out)]
    return [sys.executable, "-m", "export_zoo.attempt", tool, case.name, file, "--opset", str(opset)]


def _environment() -> dict[str, str]:
    """Return the environment of a tool: one thread, no network, and this folder first on the path."""
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }


def _judge(case: Case, files: dict[str, Path], opset: int) -> dict[str, dict[str, str | None]]:
    if not files:
        return {}
    command = [sys.executable, "-m", "export_zoo.judge", case.name, str(opset)]
    command += [f"{tool}={path}" for tool, path in files.items()]
    judged = subprocess.run(command, env=_environment(), check=True, capture_output=True, text=True)
    verdicts: dict[str, dict[str, str | None]] = json.loads(judged.stdout.splitlines()[-1])
    return verdicts


def _message(text: str, code: int) -> str:
    """Return the end of the output of a failed tool."""
    if code == 0:
        return ""
    if code == TIME_LIMIT:
        return "killed at the time limit"
    home = str(HERE.parent)
    lines = [line.strip().replace(home, "").replace(sys.prefix, "") for line in text.splitlines() if line.strip()]
    found = [line for line in lines if "Error" in line or "error" in line or line.startswith("- ")]
    return " | ".join(dict.fromkeys((found or lines)[-4:]))[:900]


def _between(text: str, left: str, right: str) -> str | None:
    _, found, rest = text.partition(left)
    return rest.partition(right)[0].split()[-1] if found else None


def _revision() -> str:
    """Return a short hash of optkit's code, so that results of different versions can be distinguished."""
    digest = hashlib.sha256()
    for file in sorted(importlib.resources.files("optkit").rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def machine(optimum_site: Path | None) -> Line:
    """Return the facts of the machine and the versions of the tools."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = _versions()
    if optimum_site:
        beside = metadata.distributions(name="transformers", path=[str(optimum_site)])
        versions |= {"transformers for optimum": next(iter(beside)).version}
    return {
        "machine": {"cpu": model, "cores": os.cpu_count(), "memory_gib": round(memory), "system": platform.system()},
        "python": platform.python_version(),
        "versions": versions,
    }


def _read(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _put(path: Path, line: Line) -> None:
    """Add a line, and replace the line of an earlier attempt."""
    path.parent.mkdir(exist_ok=True)
    lines = _read(path)
    same = [i for i, known in enumerate(lines) if "model" in line and _key(known) == _key(line)]
    for i in same:
        lines[i] = line
    if not same:
        lines.append(line)
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))


def _key(line: Line) -> tuple[Any, ...]:
    return line.get("model"), line.get("tool"), line.get("opset")


def _versions() -> dict[str, str]:
    """Return the versions of the installed packages; the zoo's own models need neither timm nor transformers."""
    found = {name: next(iter(metadata.distributions(name=name)), None) for name in PACKAGES}
    return {name: distribution.version for name, distribution in found.items() if distribution}


if __name__ == "__main__":
    sys.exit(main())
