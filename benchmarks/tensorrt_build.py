"""What `optkit build-engine` costs beside bare calls of TensorRT-RTX's API on the same ONNX file: seconds, memory, size. Needs no GPU.

    python benchmarks/tensorrt_build.py [--pairs 3] [--models digits,resnet50,minilm] [--precisions fp32,fp16,int8]

The floor is one process that imports TensorRT-RTX, parses the file, adds the same profile, builds and writes the engine. Both are whole
processes, in turn; the numbers are medians over the pairs of the differences of seconds (on the clock, and of processors, which a busy
machine disturbs less) and of the ratios of memory. The memory of optkit is
that of both its processes together. Targets: 1 second, 1.2 times. ResNet-50 has seeded random weights, the others their own. `same`
says whether the two wrote the same bytes; TensorRT-RTX alone does not always do so twice.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve()
RECIPES = HERE.parents[1] / "recipes"
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
    """What one command took: on the clock, of processors, and the largest proportional memory (PSS) of its processes together."""

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


def images() -> list[dict[str, np.ndarray]]:
    """Return random images: ranges for a build's time and size, and no claim of accuracy."""
    rng = np.random.default_rng(0)
    return [{"pixel_values": rng.standard_normal((4, 3, 224, 224)).astype(np.float32)} for _ in range(2)]


def main() -> int:
    """Measure, print the table, write it as JSON; 1 when a target is missed."""
    if sys.argv[1:2] == ["floor"]:
        _floor(*sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS))
    parser.add_argument("--precisions", type=lambda text: text.split(","), default=["fp32", "fp16", "int8"])
    parser.add_argument("--json", type=Path, default=HERE.parent / "results" / "tensorrt_build.json")
    options = parser.parse_args()
    found = []
    print(
        f"{'model':10} {'type':5} {'onnx MB':>8} {'plan MB':>8} {'bare s':>7} {'optkit s':>8} {'more s':>7} {'more CPU s':>10} {'memory':>7} same"
    )
    with tempfile.TemporaryDirectory(prefix="tensorrt-build-") as folder:
        for model in options.models:
            for precision, onnx in _files(model, options.precisions, Path(folder)).items():
                entry = _compare(model, precision, onnx, options.pairs)
                found.append(entry)
                print("{model:10} {precision:5} {onnx_mb:8.1f} {plan_mb:8.1f} {bare_s:7.2f} {optkit_s:8.2f} {overhead_s:7.2f} {overhead_cpu_s:10.2f} {memory_ratio:6.2f}x {same_bytes}".format(**entry), flush=True)  # fmt: skip
    document = {
        "targets": {"overhead_s": OVERHEAD_S, "memory_ratio": MEMORY_RATIO},
        "machine": _machine(),
        "comparisons": found,
    }
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps(document, indent=2) + "\n")
    good = all(e["overhead_s"] <= OVERHEAD_S and e["memory_ratio"] <= MEMORY_RATIO for e in found)
    return 0 if good else 1


def _files(model: str, precisions: Sequence[str], folder: Path) -> dict[str, Path]:
    """Export the model, and make its ONNX file in every precision."""
    from optkit.source import open_artifact
    from optkit.stages import ConvertFp16, QuantizeStatic

    target, inputs, dims, data = MODELS[model]
    base = folder / f"{model}.fp32.onnx"
    command = [
        _optkit(),
        "export",
        "onnx",
        target,
        "-o",
        str(base),
        "--exporter",
        "torchscript",
        "-q",
        "--may-mix-batch",
    ]
    command += [part for spec in inputs for part in ("--input", spec)]
    command += [part for name, text in dims.items() for part in ("--dim", f"{name}={text}")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    source = open_artifact(base)
    made = {"fp32": lambda: source}
    made["fp16"] = lambda: ConvertFp16().run(source, folder, f"{model}.fp16.onnx")
    made["int8"] = lambda: QuantizeStatic(target="tensorrt", calibration=data).run(source, folder, f"{model}.int8.onnx")
    return {precision: made[precision]().path for precision in precisions}


def _compare(model: str, precision: str, onnx: Path, pairs: int) -> dict[str, object]:
    dims = MODELS[model][2]
    plans = {name: onnx.with_suffix(f".{name}.plan") for name in ("bare", "optkit")}
    ranges = [part for name, text in dims.items() for part in ("--dim", f"{name}={text}")]
    commands = {
        "bare": [sys.executable, str(HERE), "floor", model, str(onnx), str(plans["bare"])],
        "optkit": [_optkit(), "build-engine", str(onnx), "-o", str(plans["optkit"]), "--runtime", "tensorrt-rtx", "--force", "-q", *ranges],
    }  # fmt: skip
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for number in range(pairs + 1):
        for name in sorted(commands, reverse=bool(number % 2)):
            run = _measured(commands[name])
            if number:  # the first pair fills the caches
                runs[name].append(run)
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
        "memory_ratio": statistics.median(ours.peak_mib / floor.peak_mib for floor, ours in paired),
        "same_bytes": len(digests) == 1,
        "runs": {name: [dataclasses.asdict(run) for run in found] for name, found in runs.items()},
        "load_average": os.getloadavg()[0],
    }


def _measured(command: Sequence[str]) -> Run:
    """Run a command and return what it and the processes that it waited for took."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0.0
    while True:
        found, status, usage = os.wait4(process.pid, os.WNOHANG)
        seconds = time.perf_counter() - started
        if found:
            break
        peak = max(peak, sum(map(_pss_mib, _tree(process.pid))))
        time.sleep(0.05)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        _, error = process.communicate()
        raise SystemExit(f"{' '.join(command)} failed:\n{error.decode()}")
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
    from optkit.bench import this_machine

    return this_machine().model_dump() | {"load_before": os.getloadavg()[0]}


def _floor(model: str, onnx: str, plan: str) -> None:
    """Do what a careful engineer's own script does, and no more."""
    import tensorrt_rtx_bindings as trt

    _, inputs, dims, _ = MODELS[model]
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(onnx):
        raise SystemExit(str(parser.get_error(0).desc()))
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    profile = builder.create_optimization_profile()
    for spec in inputs:
        name, _, rest = spec.partition(":")
        shape = rest.partition("[")[2].rstrip("]").split(",")
        ends = [[int(dims[d].split(":")[i]) if d in dims else int(d) for d in shape] for i in range(3)]
        if any(network.get_input(i).name == name for i in range(network.num_inputs)):
            profile.set_shape(name, *ends)
    config.add_optimization_profile(profile)
    built = builder.build_serialized_network(network, config)
    Path(plan).write_bytes(built)


if __name__ == "__main__":
    sys.exit(main())
