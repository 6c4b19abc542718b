"""INT8 by optkit and its peers: what is left of the accuracy on real tasks, and what it gains in speed.

    python benchmarks/int8_accuracy.py                                 # all that is not in the results yet
    python benchmarks/int8_accuracy.py --only minilm                   # a piece of it
    python benchmarks/int8_accuracy.py --again 'optkit*'               # these tools anew, after a change
    python benchmarks/int8_accuracy.py --quick                         # all of it in some minutes; its own results, for nobody
    python benchmarks/int8_accuracy.py --report                        # write the table of the results

Every tool gets the same FP32 ONNX file (of the TorchScript exporter) and the same calibration samples in a process of its own, with its
defaults; `optkit` alone is optkit's default with calibration data. Its file is judged on other samples: the task's score, the share of decisions that FP32 makes too, cosine and SQNR. All files of a
task are then measured together in alternating blocks, at 1 and 2 threads and batch 1 and 8.

optkit's files are those of its commands, with the proof that these demand: a file that it refuses to write is reported so. Peers beside
ONNX Runtime live in environments of their own, which must not take optkit's packages down to the versions that they pin:

    --olive-python     one with olive-ai (tried: 0.13.0), onnxruntime and torch==2.13.0
    --modelopt-python  one with nvidia-modelopt (tried: 0.47.0; pip install --no-deps, then onnx~=1.21, onnxruntime~=1.24, onnx-graphsurgeon,
                       polygraphy, lief, cppimport, onnxconverter-common, pulp, omegaconf, ninja, nvidia-ml-py, torch==2.13.0)

neural-compressor is not among them: its releases from 3.0 on quantize PyTorch, TensorFlow and JAX models, no ONNX files.
"""

import argparse
import fnmatch
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from export_zoo.process import measure as run_process
from int8_accuracy import report
from int8_accuracy.tasks import TASKS, Feed, Task, quality

HERE = Path(__file__).resolve().parent
ATTEMPT = HERE / "int8_accuracy" / "attempt.py"
OPTKIT = [sys.executable, "-m", "optkit"]
LIMIT_S = 1800.0  # of processor time for one tool on one model
PEERS = {"ort-static": "", "ort-dynamic": "", "olive-static": "olive", "olive-dynamic": "olive", "modelopt": "modelopt"}
OWN = ("optkit", "optkit static", "optkit entropy", "optkit dynamic", "optkit-torch static", "optkit-torch dynamic")

Result = dict[str, Any]


def main() -> int:
    """Run what is asked for and not there yet, or write the report."""
    options = _options()
    results = _results(options)
    if not options.report:
        for name in [name for name in TASKS if fnmatch.fnmatch(name, options.only)]:
            run_task(TASKS[name](), results, options)
    options.results.with_suffix(".md").write_text(report.markdown(results))
    print(report.summary(results))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help=f"tasks whose name fits: {', '.join(TASKS)}")
    parser.add_argument("--again", default="", help="forget the files of tools whose name fits, and the speeds")
    parser.add_argument("--quick", action="store_true", help="short measurements, in results of their own")
    parser.add_argument("--report", action="store_true", help="only write the table")
    parser.add_argument("--olive-python", type=Path)
    parser.add_argument("--modelopt-python", type=Path)
    parser.add_argument("--work", type=Path, default=Path("int8_accuracy_work"), help="where the files are kept")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "int8_accuracy.json")
    options = parser.parse_args()
    if options.quick:
        options.work, options.results = options.work / "quick", options.work / "quick" / "results.json"
    options.work.mkdir(parents=True, exist_ok=True)
    return options


def run_task(task: Task, results: Result, options: argparse.Namespace) -> None:
    """Make what is missing, judge it, and measure all files of the task when one of them is new."""
    folder = options.work / task.name
    prepare(task, folder, quick=options.quick)
    found = results["tasks"].setdefault(task.name, {"made": {}})
    found |= {"what": task.what, "score_name": task.score_name}
    feeds = task.evaluation()[: 2 if options.quick and not task.score else None]
    expected = outputs(folder / "fp32.onnx", task, feeds)
    found["fp32"] = {"score": task.score(expected) if task.score else None}
    found["fp32"]["size_bytes"] = (folder / "fp32.onnx").stat().st_size
    for tool in (*OWN, *PEERS):
        file = folder / f"{tool.replace(' ', '-')}.{'pt' if 'torch' in tool else 'onnx'}"
        known = found["made"].get(tool)
        if known and (known["exit"] or file.exists()) and not fnmatch.fnmatch(tool, options.again):
            continue
        command = _command(tool, task, folder, file, options)
        if command is None:
            continue
        found["made"][tool] = _attempt(command, file, folder)
        if found["made"][tool]["exit"] == 0:
            found["made"][tool] |= quality(task, expected, outputs(file, task, feeds))
        print(task.name, tool, {k: v for k, v in found["made"][tool].items() if k != "peak_mib"}, flush=True)
        found.pop("speed", None)
        _save(results, options)
    if "speed" not in found or options.again:
        found |= speed(task, folder, found["made"], quick=options.quick)
        _save(results, options)


def prepare(task: Task, folder: Path, *, quick: bool) -> None:
    """Train what is to be trained, write the calibration samples, and export the FP32 file, where they are not there yet."""
    calibration = folder / "calibration"
    if not calibration.is_dir():
        calibration.mkdir(parents=True)
        feeds = task.calibration()
        for i, feed in enumerate(feeds[:2] if quick else feeds):
            np.savez(calibration / f"{i:04}.npz", **feed)
    if task.train and not (folder / "weights.pt").exists():
        task.train(folder / "weights.pt")
    if not (folder / "fp32.onnx").exists():
        command = [*OPTKIT, "export", "onnx", task.source, "-o", str(folder / "fp32.onnx"), "--exporter", "torchscript"]
        subprocess.run([*command, *task.contract, *_weights(task, folder), "-q"], check=True, capture_output=True)


def _weights(task: Task, folder: Path) -> list[str]:
    return ["--weights", str(folder / "weights.pt")] if task.train else []


def _command(tool: str, task: Task, folder: Path, file: Path, options: argparse.Namespace) -> list[str] | None:
    """Return the command line of a tool; None where its environment was not given."""
    model, calibration = str(folder / "fp32.onnx"), str(folder / "calibration")
    data = [] if tool.endswith("dynamic") else ["--calibration", calibration]
    quantize = [*OPTKIT, "quantize", model, "-o", str(file), "--force", *data]
    match tool.split():
        case ["optkit"]:  # its default, with calibration data
            return quantize
        case ["optkit", "entropy"]:
            return [*quantize, "--mode", "static", "--method", "entropy"]
        case ["optkit", mode]:
            return [*quantize, "--mode", mode]
        case ["optkit-torch", mode]:
            command = [*OPTKIT, "quantize-torch", task.source, *task.contract, *_weights(task, folder)]
            real = data or ["--data", calibration]  # for the proof
            return [*command, "-o", str(file), "--force", "--mode", mode, *real]
    pythons = {"": Path(sys.executable), "olive": options.olive_python, "modelopt": options.modelopt_python}
    python = pythons[PEERS[tool]]
    given = str(folder / "given.onnx")
    return [str(python), str(ATTEMPT), tool, given, calibration, str(file)] if python else None


def _attempt(command: Sequence[str], file: Path, folder: Path) -> Result:
    """Run a tool in a process of its own; `exit` is 0 when it handed over a file."""
    file.unlink(missing_ok=True)
    # A copy of its own: modelopt 0.47 writes to the model that it is given.
    shutil.copyfile(folder / "fp32.onnx", folder / "given.onnx")
    environment = os.environ | {"OLIVE_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
    done = run_process(command, environment, folder / "log.txt", LIMIT_S)
    made: Result = {"exit": done.code or int(not file.exists()), "seconds": done.seconds, "peak_mib": done.peak_mib}
    if made["exit"]:
        lines = [line.strip() for line in done.text.splitlines() if line.strip()]
        told = [line for line in lines if "rror" in line or line.startswith(("not ", "parity"))] or lines[-1:]
        return made | {"message": " ".join(told[-2:])[:400].replace("|", "/")}
    return made | {"size_bytes": file.stat().st_size, "message": ""}


def _open(file: Path, task: Task) -> Any:
    from optkit.source import open_artifact
    from optkit.tensors import DimRange

    return open_artifact(file, {name: DimRange.parse(text) for name, text in task.dims.items()})


def outputs(file: Path, task: Task, feeds: Sequence[Feed]) -> np.ndarray:
    """Return what a file gives for all feeds, row by row."""
    from optkit.runners import open_runner

    with open_runner(_open(file, task)) as runner:
        return np.concatenate([runner.infer(feed)[task.output] for feed in feeds])


def speed(task: Task, folder: Path, made: dict[str, Result], *, quick: bool) -> Result:
    """Measure all files of a task in alternating blocks, and return the ratios to FP32."""
    from optkit.bench import BenchSettings, load_average, measure
    from optkit.data import Feeds, Samples

    files = {"FP32": folder / "fp32.onnx"}
    files |= {
        t: folder / f"{t.replace(' ', '-')}.{'pt' if 'torch' in t else 'onnx'}" for t in made if not made[t]["exit"]
    }
    artifacts = {tool: _open(file, task) for tool, file in files.items()}
    reference = artifacts["FP32"]
    samples = Samples(reference.inputs, reference.dims, Feeds(str(folder / "calibration"), reference.inputs))
    length = {"min_blocks": 2, "max_blocks": 2} if quick else {"time_limit_s": 300.0}
    found: Result = {"speed": [], "fp32_speed": [], "load_before": load_average()}
    for threads in (1, 2):
        measured = measure(artifacts, samples, BenchSettings(batches=(1, 8), threads=threads, **length), "FP32")
        found["fp32_speed"] += [
            {"threads": threads, "batch": m.batch, "p50_ms": m.p50_ms}
            for m in measured.measurements
            if m.artifact == "FP32"
        ]
        found["speed"] += [
            {"tool": s.candidate, "threads": threads, "batch": s.batch, "ratio": s.ratio, "low": s.low, "high": s.high}
            for s in measured.speed_ups
            if s.low is not None
        ]
    return found


def _results(options: argparse.Namespace) -> Result:
    from optkit import deps
    from optkit.bench import this_machine

    facts = {"machine": this_machine().model_dump(), "versions": dict(deps.built_with()), "quick": options.quick}
    for package, python in (("olive-ai", options.olive_python), ("nvidia-modelopt", options.modelopt_python)):
        if python:
            code = f"from importlib.metadata import version; print(version({package!r}))"
            facts["versions"][package] = subprocess.check_output([python, "-c", code], text=True).strip()
    if not options.results.exists():
        return facts | {"tasks": {}}
    known: Result = json.loads(options.results.read_text())
    return known | facts | {"versions": known["versions"] | facts["versions"]}


def _save(results: Result, options: argparse.Namespace) -> None:
    """Write the results whole or not at all, so that a run that is killed loses one file at most."""
    partial = options.results.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1) + "\n")
    partial.replace(options.results)


if __name__ == "__main__":
    sys.exit(main())
