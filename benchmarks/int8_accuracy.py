"""INT8 with optkit and other tools: the accuracy on real tasks, and the speed-up.

    python benchmarks/int8_accuracy.py                                 # everything that is not in the results yet
    python benchmarks/int8_accuracy.py --only minilm --limit-s 300     # a part of it: nothing new starts after 300 s
    python benchmarks/int8_accuracy.py --again 'optkit*'               # delete these tools' files and all speeds, after a change
    python benchmarks/int8_accuracy.py --quick                         # everything in a few minutes; separate results, for tests only
    python benchmarks/int8_accuracy.py --report                        # write the table of the results

Every tool gets the same FP32 ONNX file (from the TorchScript exporter) and the same calibration samples, and runs in a separate process with its
defaults; `optkit` is optkit's default with calibration data, and `advised` has the settings that ONNX Runtime's documentation recommends for
this processor. Each file is evaluated on other samples: the task's score, the share of decisions that are the same as in FP32, cosine and SQNR.
Then all files of a task are measured together in alternating blocks, at 1 and 2 threads and batch 1 and 8.

A run can be stopped at any time and continues there. A piece is one tool on one task, the speeds of a task at one number of threads (one to
two minutes), or other methods for a task (`int8_accuracy/methods.py`: SmoothQuant, bias correction, unsigned weights). Exit code 3: pieces are
left.

optkit's files come from its commands, with their checks; a file that optkit refuses to write is reported as refused. Tools other than ONNX
Runtime need separate environments, because they need other versions of optkit's packages:

    --olive-python     one with olive-ai, onnxruntime and torch==2.13.0
    --modelopt-python  one with nvidia-modelopt (tried: pip install --no-deps, then onnx~=1.21, onnxruntime~=1.24, onnx-graphsurgeon,
                       polygraphy, lief, cppimport, onnxconverter-common, pulp, omegaconf, ninja, nvidia-ml-py, torch==2.13.0)
    --inc-python       one with neural-compressor 2.6, numpy<2, onnx<1.18 and onnxruntime<1.24. Its releases from 3.0 on quantize PyTorch,
                       TensorFlow and JAX models, but no ONNX files.
"""

import argparse
import fnmatch
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from int8_accuracy import methods, report
from int8_accuracy.judging import outputs, speed
from int8_accuracy.tasks import TASKS, Task, quality
from int8_accuracy.tools import OPTKIT, OWN, PEERS, attempt, command, file_of, weights

HERE = Path(__file__).resolve().parent
THREADS = (1, 2)
PACKAGES = {"olive": "olive-ai", "modelopt": "nvidia-modelopt", "inc": "neural-compressor"}
LEFT = 3  # the exit code where pieces are left

Result = dict[str, Any]


class TimeUp(Exception):
    """The time limit is reached; no new piece may start."""


def main() -> int:
    """Run the requested pieces that are missing, or write the report."""
    options = _options()
    results = _results(options)
    if options.again:
        _forget(results, options)
    try:
        for name in [name for name in TASKS if fnmatch.fnmatch(name, options.only) and not options.report]:
            run_task(TASKS[name](), results, options)
        code = 0
    except TimeUp:
        code = LEFT
    options.results.with_suffix(".md").write_text(report.markdown(results))
    print(report.summary(results))
    return code


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help=f"tasks whose name fits: {', '.join(TASKS)}")
    parser.add_argument("--again", default="", help="forget the files of tools whose name fits, and the speeds")
    parser.add_argument(
        "--make",
        default="",
        help="only make and judge the files of tools, or `methods`, whose name fits; measure nothing",
    )
    parser.add_argument(
        "--limit-s", type=float, default=float("inf"), help="start nothing new after this number of seconds"
    )
    parser.add_argument("--quick", action="store_true", help="short measurements, with separate results")
    parser.add_argument("--report", action="store_true", help="only write the table")
    for peer, package in PACKAGES.items():
        parser.add_argument(f"--{peer}-python", type=Path, help=f"a Python that has {package}")
    parser.add_argument("--work", type=Path, default=Path("int8_accuracy_work"), help="where the files are kept")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "int8_accuracy.json")
    options = parser.parse_args()
    options.until = time.monotonic() + options.limit_s
    if options.quick:
        options.work, options.results = options.work / "quick", options.work / "quick" / "results.json"
    options.work.mkdir(parents=True, exist_ok=True)
    return options


def _pythons(options: argparse.Namespace) -> dict[str, Path | None]:
    return {peer: getattr(options, f"{peer}_python") for peer in PACKAGES}


def _forget(results: Result, options: argparse.Namespace) -> None:
    """Delete files of tools, and the speeds that were measured together with them."""
    for name, found in results["tasks"].items():
        gone = [tool for tool in found["made"] if fnmatch.fnmatch(tool, options.again)]
        if gone and fnmatch.fnmatch(name, options.only):
            for tool in gone:
                del found["made"][tool]
            found |= {"speed": [], "fp32_speed": []}
    _save(results, options)


def run_task(task: Task, results: Result, options: argparse.Namespace) -> None:
    """Make and evaluate the missing files, and measure all files of the task if one of them is new.

    Raises:
        TimeUp: a piece is left.
    """
    folder = options.work / task.name
    prepare(task, folder, quick=options.quick)
    found = results["tasks"].setdefault(task.name, {"made": {}, "speed": [], "fp32_speed": []})
    found |= {"what": task.what, "score_name": task.score_name}
    feeds = task.evaluation()[: 2 if options.quick and not task.score else None]
    expected = outputs(folder / "fp32.onnx", task, feeds)
    found["fp32"] = {"score": task.score(expected) if task.score else None}
    found["fp32"]["size_bytes"] = (folder / "fp32.onnx").stat().st_size
    for tool in (*OWN, *PEERS):
        file, known = file_of(tool, folder), found["made"].get(tool)
        line = command(tool, task, folder, _pythons(options))
        if (
            line is None
            or not fnmatch.fnmatch(tool, options.make or "*")
            or (known and (known["exit"] or file.exists()))
        ):
            continue
        _begin(options)
        made = attempt(line, file, folder)
        if made["exit"] == 0:
            made |= quality(task, expected, outputs(file, task, feeds))
        found["made"][tool] = made
        found |= {"speed": [], "fp32_speed": []}
        print(task.name, tool, {k: v for k, v in made.items() if k != "peak_mib"}, flush=True)
        _save(results, options)
    if "methods" not in found and fnmatch.fnmatch("methods", options.make or "*") and not options.quick:
        _begin(options)
        found["methods"] = methods.tried(task, folder)
        _save(results, options)
    if not options.make:
        _speeds(task, found, results, options)


def _speeds(task: Task, found: Result, results: Result, options: argparse.Namespace) -> None:
    """Measure at the numbers of threads that are missing."""
    folder = options.work / task.name
    files = {"FP32": folder / "fp32.onnx"}
    files |= {tool: file_of(tool, folder) for tool, made in found["made"].items() if not made["exit"]}
    for threads in THREADS:
        if any(known["threads"] == threads for known in found["fp32_speed"]):
            continue
        _begin(options)
        for key, rows in speed(task, folder, files, threads, quick=options.quick).items():
            found[key] = rows if key == "load_before" else [*found[key], *rows]
        print(task.name, f"measured at {threads} thread(s)", flush=True)
        _save(results, options)


def _begin(options: argparse.Namespace) -> None:
    if time.monotonic() > options.until:
        raise TimeUp


def prepare(task: Task, folder: Path, *, quick: bool) -> None:
    """Train the models, write the calibration samples, and export the FP32 file, if they do not exist yet."""
    calibration = folder / "calibration"
    if not calibration.is_dir():
        calibration.mkdir(parents=True)
        feeds = task.calibration()
        for i, feed in enumerate(feeds[:2] if quick else feeds):
            np.savez(calibration / f"{i:04}.npz", **feed)
    if task.train and not (folder / "weights.pt").exists():
        task.train(folder / "weights.pt")
    if not (folder / "fp32.onnx").exists():
        line = [*OPTKIT, "export", "onnx", task.source, "-o", str(folder / "fp32.onnx"), "--exporter", "torchscript"]
        subprocess.run([*line, *task.contract, *weights(task, folder), "-q"], check=True, capture_output=True)


def _results(options: argparse.Namespace) -> Result:
    from optkit import deps
    from optkit.benchmark import this_machine

    facts = {"machine": this_machine().model_dump(), "versions": dict(deps.built_with()), "quick": options.quick}
    for peer, python in _pythons(options).items():
        if python:
            code = f"from importlib.metadata import version; print(version({PACKAGES[peer]!r}))"
            facts["versions"][PACKAGES[peer]] = subprocess.check_output([python, "-c", code], text=True).strip()
    if not options.results.exists():
        return facts | {"tasks": {}}
    known: Result = json.loads(options.results.read_text())
    return known | facts | {"versions": known["versions"] | facts["versions"]}


def _save(results: Result, options: argparse.Namespace) -> None:
    """Write the results atomically, so that a killed run loses at most one file."""
    partial = options.results.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1) + "\n")
    partial.replace(options.results)


if __name__ == "__main__":
    sys.exit(main())
