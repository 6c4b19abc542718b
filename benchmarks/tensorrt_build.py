"""The cost of `optkit build-engine` compared with direct calls of TensorRT-RTX's API on the same ONNX file: time, memory, size. Needs no GPU.

    python benchmarks/tensorrt_build.py [--pairs 5] [--models digits,resnet50,minilm] [--precisions fp32,fp16,int8] [--onnx FOLDER]

The lower bound ("floor") is `tensorrt_floor.py`: one process that imports only TensorRT-RTX, parses the file, adds the same profile, builds
and writes the engine. Both start from the same ONNX file, which is already cast or quantized, so neither time includes this. optkit's whole
command is measured: the check of the file and of the profile, the build process, the hash, the passport.

Both are whole processes that alternate, with compiled bytecode like in an installed package. The results are medians over the pairs: the
differences in seconds (wall clock and CPU time, which other load affects less) and the ratios of memory. Memory is the largest sum of the
proportional set sizes (PSS) of a process and its children, sampled continuously because the peak lasts about 10 ms. Sampling uses a core, so it
is done in separate runs, whose time is not counted. Targets: 1 second of wall clock, 1.2 times the memory. ResNet-50 has seeded random weights,
the other models have real ones. `same` is whether the two wrote the same bytes; TensorRT-RTX alone does not always do this twice. Models that
are left out keep their numbers in the results file.
"""

import argparse
import dataclasses
import hashlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
RECIPES = HERE.parents[1] / "recipes"
RESULTS = HERE.parent / "results" / "tensorrt_build.json"
MEMORY_PAIRS = 3  # at most; a peak differs by 2 % from run to run
LIBRARIES = ("optkit", "tensorrt_rtx_cu13_bindings", "onnx", "pydantic")
OVERHEAD_S, MEMORY_RATIO = 1.0, 1.2
MODELS: dict[str, tuple[str, tuple[str, ...], dict[str, str], str]] = {
    "digits": (f"{RECIPES / 'digits.py'}:build", ("image:float32[batch,1,8,8]",), {"batch": "1:8:64"}, f"{RECIPES / 'digits.py'}:calibration"),
    "resnet50": (f"{HERE}:resnet50", ("pixel_values:float32[batch,3,224,224]",), {"batch": "1:8:16"}, f"{HERE}:images"),
    "minilm": (
        f"{RECIPES / 'minilm.py'}:build",
        ("input_ids:int64[batch,sequence]", "attention_mask:int64[batch,sequence]", "token_type_ids:int64[batch,sequence]"),
        {"batch": "1:4:16", "sequence": "8:32:128"},
        f"{RECIPES / 'minilm.py'}:calibration",
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Run:
    """The wall-clock time, the CPU time and the largest total PSS of the processes of one command.

    The memory is 0 if it was not sampled.
    """

    seconds: float
    cpu_seconds: float
    peak_mib: float


def resnet50() -> object:
    """Return ResNet-50 (He et al. 2015) of transformers with seeded random weights."""
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = ResNetForImageClassification(ResNetConfig(num_labels=1000))

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return self.model(pixel_values).logits

    torch.manual_seed(0)
    return Logits().eval()


def images() -> list[dict[str, object]]:
    """Return random images: ranges that are sufficient for a build's time and size, but not for accuracy."""
    import numpy as np

    rng = np.random.default_rng(0)
    return [{"pixel_values": rng.standard_normal((4, 3, 224, 224)).astype(np.float32)} for _ in range(2)]


def main() -> int:
    """Measure, print the table, write it as JSON and Markdown; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS))
    parser.add_argument("--precisions", type=lambda text: text.split(","), default=["fp32", "fp16", "int8"])
    parser.add_argument("--onnx", type=Path, help="a folder that keeps the ONNX files for the next call")
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args()
    earlier = json.loads(options.json.read_text())["comparisons"] if options.json.exists() else []
    found = {(entry["model"], entry["precision"]): entry for entry in earlier}
    with tempfile.TemporaryDirectory(prefix="tensorrt-build-") as temporary:
        folder = options.onnx or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for model in options.models:
            for precision, onnx in _files(model, options.precisions, folder).items():
                entry = _compare(model, precision, onnx, Path(temporary), options.pairs)
                found[model, precision] = entry
                print(_row(entry), flush=True)
    ordered = [found[key] for key in itertools.product(MODELS, ("fp32", "fp16", "int8")) if key in found]
    document = {
        "targets": {"overhead_s": OVERHEAD_S, "memory_ratio": MEMORY_RATIO},
        "machine": _machine(),
        "comparisons": ordered,
    }
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps(document, indent=2) + "\n")
    options.json.with_suffix(".md").write_text(_markdown(document))
    return 0 if all(map(_good, ordered)) else 1


def _good(entry: Mapping[str, Any]) -> bool:
    return entry["overhead_s"] <= OVERHEAD_S and entry["memory_ratio"] <= MEMORY_RATIO


_HEAD = (
    "| model | precision | ONNX MB | plan MB | bare s | optkit s | more s | more CPU s | bare MiB | optkit MiB | memory | same bytes | load |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
)


def _row(entry: Mapping[str, Any]) -> str:
    return (
        "| {model} | {precision} | {onnx_mb:.1f} | {plan_mb:.1f} | {bare_s:.2f} | {optkit_s:.2f} | {overhead_s:.2f} | {overhead_cpu_s:.2f} "
        "| {bare_mib:.0f} | {optkit_mib:.0f} | {memory_ratio:.2f}x | {same_bytes} | {load_average:.1f} |"
    ).format(**entry)


def _markdown(document: Mapping[str, Any]) -> str:
    entries, machine = document["comparisons"], document["machine"]
    largest = [max(entry[key] for entry in entries) for key in ("overhead_s", "overhead_cpu_s", "memory_ratio")]
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    return (
        "# `optkit build-engine` beside bare calls of TensorRT-RTX\n\nWritten by `benchmarks/tensorrt_build.py`, which says what a number is.\n\n"
        f"**At most {largest[0]:.2f} s more on the clock ({largest[1]:.2f} s more of processors) and {largest[2]:.2f}x the memory; "
        f"targets {OVERHEAD_S:g} s and {MEMORY_RATIO:g}x.**\n\n"
        + _HEAD
        + "".join(f"{_row(entry)}\n" for entry in entries)
        + f"\nMedians of {min(len(entry['runs']['bare']) for entry in entries)} pairs or more. {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['system']}; Python {machine['python']}, {libraries}. No GPU: that the engines run is not proven by this.\n"
    )


def _files(model: str, precisions: Sequence[str], folder: Path) -> dict[str, Path]:
    """Return the model's ONNX file in every precision, exported and made if it does not exist yet."""
    from optkit.pytorch.source import open_artifact
    from optkit.stages import ConvertFp16, QuantizeStatic

    files = {precision: folder / f"{model}.{precision}.onnx" for precision in ("fp32", *precisions)}
    asked = {precision: files[precision] for precision in precisions}
    if all(file.exists() for file in files.values()):
        return asked
    target, inputs, dims, data = MODELS[model]
    base = files["fp32"]
    command = [
        *(_optkit(), "export", "onnx", target, "-o", str(base)),
        *("--exporter", "torchscript", "-q", "--allow-batch-dependence", "--force"),
    ]
    command += [part for spec in inputs for part in ("--input", spec)]
    command += [part for name, text in dims.items() for part in ("--dim", f"{name}={text}")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    source = open_artifact(base)
    if "fp16" in precisions:
        ConvertFp16().run(source, folder, files["fp16"].name)
    if "int8" in precisions:
        QuantizeStatic(target="tensorrt", calibration=data).run(source, folder, files["int8"].name)
    return asked


def _compare(model: str, precision: str, onnx: Path, folder: Path, pairs: int) -> dict[str, Any]:
    dims = MODELS[model][2]
    plans = {name: folder / f"{onnx.stem}.{name}.plan" for name in ("bare", "optkit")}
    ranges = [part for name, text in dims.items() for part in ("--dim", f"{name}={text}")]
    commands = {
        "bare": [sys.executable, str(HERE.with_name("tensorrt_floor.py")), str(onnx), str(plans["bare"]), *_profiles(model, onnx)],
        "optkit": [_optkit(), "build-engine", str(onnx), "-o", str(plans["optkit"]), "--runtime", "tensorrt-rtx", "-q", *ranges],
    }  # fmt: skip
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    watched: dict[str, list[Run]] = {name: [] for name in commands}
    # The first pair fills the caches.
    for number, kept in enumerate([{}, *([runs] * pairs), *([watched] * min(pairs, MEMORY_PAIRS))]):
        for name in sorted(commands, reverse=bool(number % 2)):
            plans[name].unlink(missing_ok=True)  # to replace 100 MB takes the file system a tenth of a second
            kept.setdefault(name, []).append(_measured(commands[name], folder, watch=kept is watched))
    paired = list(zip(runs["bare"], runs["optkit"], strict=True))
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in plans.values()}
    return {
        "model": model,
        "precision": precision,
        "onnx_mb": onnx.stat().st_size / 1e6,
        "plan_mb": plans["optkit"].stat().st_size / 1e6,
        "bare_s": statistics.median(run.seconds for run in runs["bare"]),
        "optkit_s": statistics.median(run.seconds for run in runs["optkit"]),
        "overhead_s": statistics.median(ours.seconds - floor.seconds for floor, ours in paired),
        "overhead_cpu_s": statistics.median(ours.cpu_seconds - floor.cpu_seconds for floor, ours in paired),
        "bare_mib": statistics.median(run.peak_mib for run in watched["bare"]),
        "optkit_mib": statistics.median(run.peak_mib for run in watched["optkit"]),
        "memory_ratio": statistics.median(
            ours.peak_mib / floor.peak_mib for floor, ours in zip(watched["bare"], watched["optkit"], strict=True)
        ),
        "same_bytes": len(digests) == 1,
        "runs": {name: [dataclasses.asdict(run) for run in found] for name, found in runs.items()},
        "watched": {name: [dataclasses.asdict(run) for run in found] for name, found in watched.items()},
        "load_average": os.getloadavg()[0],
    }


def _profiles(model: str, onnx: Path) -> list[str]:
    """Return the profile as the floor reads it; exporters leave out inputs that no output depends on."""
    from optkit import onnx_file

    _, inputs, dims, _ = MODELS[model]
    there = {spec.name for spec in onnx_file.facts(onnx).inputs}
    found = []
    for text in inputs:
        name, _, rest = text.partition(":")
        shape = rest.partition("[")[2].rstrip("]").split(",")
        ends = ("x".join(dims[d].split(":")[i] if d in dims else d for d in shape) for i in range(3))
        found += [f"{name}={','.join(ends)}"] if name in there else []
    return found


def _measured(command: Sequence[str], folder: Path, *, watch: bool) -> Run:
    """Run a command and return the time of it and its child processes, and their memory if it is sampled."""
    compiled = {"PYTHONPYCACHEPREFIX": str(folder / "bytecode"), "PYTHONDONTWRITEBYTECODE": ""}
    with tempfile.TemporaryFile() as printed:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=printed, env=os.environ | compiled)
        peak = 0.0
        found = 0
        while not found:
            found, status, usage = os.wait4(process.pid, os.WNOHANG if watch else 0)
            peak = max(peak, sum(map(_pss_mib, _tree(process.pid)))) if watch else 0.0
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            printed.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{printed.read().decode()}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, peak)


def _tree(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in _tree(int(child)))]


def _pss_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def _optkit() -> str:
    return str(Path(sys.executable).with_name("optkit"))


def _machine() -> dict[str, object]:
    from optkit.benchmark import this_machine

    return this_machine().model_dump() | {"libraries": {name: metadata.version(name) for name in LIBRARIES}}


if __name__ == "__main__":
    sys.exit(main())
