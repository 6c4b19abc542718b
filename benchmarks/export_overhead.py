"""The cost of `optkit export onnx` with all its checks, compared with a minimal script of a careful engineer.

    python benchmarks/export_overhead.py [--pairs 5] [--exporter auto] [--models resnet18,minilm]

The lower bound ("floor") is one process that imports torch, builds the same model, calls the exporter that optkit chose with the same
settings, runs onnx.checker with full shape inference, and compares eager PyTorch with ONNX Runtime at the smallest and the largest shape. Both
are whole processes that alternate, and the order changes with each pair; the results are the medians of the ratios within pairs. The target is
1.15 for time and for peak memory. `--optimum` compares optimum-cli on MiniLM with the floor of the exporter that it uses; export_zoo.py
explains its requirements.

PyTorch runs on one thread in both, so that other work on the machine affects both equally. Weights are random and seeded, which does not
change the cost.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from export_zoo.process import Measured, measure, without_torchvision

if TYPE_CHECKING:
    from torch import Tensor, nn

TARGET = 1.15
HERE = Path(__file__).resolve()
INPUTS = {
    "resnet18": ("image:float32[batch,3,224,224]",),
    "minilm": (
        "input_ids:int64[batch,sequence]",
        "attention_mask:int64[batch,sequence]",
        "token_type_ids:int64[batch,sequence]",
    ),
}
DIMS = {"resnet18": {"batch": (1, 4, 8)}, "minilm": {"batch": (1, 8, 16), "sequence": (8, 32, 128)}}
TIME_LIMIT_S = 600.0

Runs = dict[str, list[Measured]]


def main() -> int:
    """Measure the pairs, print the table, write it as JSON; 1 when a target is missed."""
    if sys.argv[1:2] == ["floor"]:
        _floor(*sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--exporter", choices=["auto", "dynamo", "torchscript"], default="auto")
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(INPUTS))
    parser.add_argument("--optimum", nargs="*", metavar="DIR", help="measure optimum-cli too, with these on its path")
    parser.add_argument("--json", type=Path, default=HERE.parent / "results" / "export_overhead.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="export-overhead-") as name:
        folder = Path(name)
        found = [
            _compare(model, "optkit", _optkit(model, options.exporter, folder), folder, options.pairs)
            for model in options.models
        ]
        if options.optimum:
            os.environ["PYTHONPATH"] = os.pathsep.join([*options.optimum, str(without_torchvision(folder))])
            found.append(_compare("minilm", "optimum", _optimum(folder), folder, options.pairs))
    options.json.parent.mkdir(exist_ok=True)
    versions = {name: _version(name) for name in ("torch", "onnx", "onnxscript", "transformers", "optkit")}
    document = {"target": TARGET, "cores": os.cpu_count(), "versions": versions, "comparisons": found}
    options.json.write_text(json.dumps(document, indent=2) + "\n")
    ours = [entry for entry in found if entry["tool"] == "optkit"]
    return 0 if all(entry["time_ratio"] <= TARGET and entry["memory_ratio"] <= TARGET for entry in ours) else 1


def _compare(model: str, tool: str, command: Sequence[str], folder: Path, pairs: int) -> dict[str, object]:
    """Run a tool and its floor in turn; the first pair fills the caches and is not counted."""
    first = _run(command, folder)
    exporter = _exporter_of(first.text) if tool == "optkit" else "torchscript"
    floor = [sys.executable, str(HERE), "floor", model, exporter, str(folder / "floor.onnx")]
    _run(floor, folder)
    runs: Runs = {tool: [], "floor": []}
    for number in range(pairs):
        turn: list[Callable[[], None]] = [
            lambda: runs[tool].append(_run(command, folder)),
            lambda: runs["floor"].append(_run(floor, folder)),
        ]
        for one in turn if number % 2 else reversed(turn):
            one()
    both = list(zip(runs[tool], runs["floor"], strict=True))
    entry = {
        "model": model,
        "tool": tool,
        "exporter": exporter,
        "time_ratio": statistics.median(ours.seconds / floor.seconds for ours, floor in both),
        "memory_ratio": statistics.median(ours.peak_mib / floor.peak_mib for ours, floor in both),
        "cpu_ratio": statistics.median(ours.cpu_seconds / floor.cpu_seconds for ours, floor in both),
        "seconds": {name: [round(run.seconds, 2) for run in all_] for name, all_ in runs.items()},
        "cpu_seconds": {name: [round(run.cpu_seconds, 2) for run in all_] for name, all_ in runs.items()},
        "peak_mib": {name: [round(run.peak_mib) for run in all_] for name, all_ in runs.items()},
    }
    print(
        f"{model:10} {tool:8} ({exporter}) / floor: {entry['time_ratio']:.2f}x time ({entry['cpu_ratio']:.2f}x of the "
        f"processor's), {entry['memory_ratio']:.2f}x memory "
        f"({statistics.median(run.seconds for run in runs['floor']):.1f} s, "
        f"{statistics.median(run.peak_mib for run in runs['floor']):.0f} MiB the floor; {pairs} pairs, target {TARGET})",
        flush=True,
    )
    return entry


def _run(command: Sequence[str], folder: Path) -> Measured:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as for a user, whose Python compiles a module once
    run = measure(command, environment, folder / "log.txt", TIME_LIMIT_S)
    if run.code:
        raise SystemExit(f"{' '.join(command[:4])} failed with {run.code}:\n{run.text[-2000:]}")
    return run


def _optkit(model: str, exporter: str, folder: Path) -> list[str]:
    optkit = str(Path(sys.executable).with_name("optkit"))
    command = [optkit, "export", "onnx", f"{HERE}:{model}", "-o", str(folder / "optkit.onnx"), "--force"]
    command += ["--exporter", exporter]
    for text in INPUTS[model]:
        command += ["--input", text]
    for dim, range_ in DIMS[model].items():
        command += ["--dim", f"{dim}={':'.join(map(str, range_))}"]
    return command


def _exporter_of(text: str) -> str:
    match = re.search(r"exported by the (\w+) exporter", text)
    if not match:
        raise SystemExit(f"optkit does not say which exporter it took:\n{text[-2000:]}")
    return match[1]


def _optimum(folder: Path) -> list[str]:
    program = Path(sys.executable).with_name("optimum-cli")
    code = (
        f"import sys; sys.path.insert(0, {str(HERE.parent)!r}); import export_overhead as e; e.save_minilm(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(folder / "minilm")], check=True, capture_output=True)
    command = [str(program), "export", "onnx", "--model", str(folder / "minilm"), "--task", "feature-extraction"]
    return [*command, "--opset", "20", "--device", "cpu", str(folder / "optimum")]


def _version(name: str) -> str:
    from importlib import metadata

    return metadata.version(name)


# --- the models, as optkit is given them -------------------------------------------------------------------------------------------


def resnet18() -> "nn.Module":
    """Return a ResNet-18."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, taken: int, given: int, stride: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(taken, given, 3, stride, 1, bias=False),
                nn.BatchNorm2d(given),
                nn.ReLU(),
                nn.Conv2d(given, given, 3, 1, 1, bias=False),
                nn.BatchNorm2d(given),
            )
            change = nn.Sequential(nn.Conv2d(taken, given, 1, stride, bias=False), nn.BatchNorm2d(given))
            self.skip = nn.Identity() if taken == given and stride == 1 else change

        def forward(self, x: "Tensor") -> "Tensor":
            return (self.body(x) + self.skip(x)).relu()

    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    sizes = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
    blocks = [
        block for taken, given, stride in sizes for block in (Block(taken, given, stride), Block(given, given, 1))
    ]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def minilm() -> "nn.Module":
    """Return the encoder of all-MiniLM-L6-v2 in a module that returns its last hidden state."""
    from torch import nn

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = _bert()

        def forward(self, input_ids: "Tensor", attention_mask: "Tensor", token_type_ids: "Tensor") -> "Tensor":
            return self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state

    return Encoder()


def save_minilm(folder: str) -> None:
    """Write the encoder as the folder that optimum-cli takes."""
    _bert().save_pretrained(folder)


def _bert() -> "nn.Module":
    sys.modules["torchvision"] = None  # type: ignore[assignment]  # a CUDA build beside a CPU torch breaks transformers
    from transformers import BertConfig, BertModel

    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    return BertModel(config)


# --- the floor ---------------------------------------------------------------------------------------------------------------------


def _floor(model: str, exporter: str, output: str) -> None:
    """Run the minimal script in one process."""
    import numpy as np
    import onnx
    import onnxruntime
    import torch

    torch.manual_seed(0)
    module = {"resnet18": resnet18, "minilm": minilm}[model]().eval()
    specs = [re.fullmatch(r"(\w+):(\w+)\[(.*)\]", text).groups() for text in INPUTS[model]]
    names = [name for name, _, _ in specs]
    axes = [{i: dim for i, dim in enumerate(dims.split(",")) if not dim.isdigit()} for _, _, dims in specs]

    def feed(sizes: dict[str, int]) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        values = {}
        for name, dtype, dims in specs:
            shape = [int(dim) if dim.isdigit() else sizes[dim] for dim in dims.split(",")]
            array = rng.standard_normal(shape) if dtype == "float32" else np.ones(shape)
            values[name] = array.astype(dtype)
        return values

    sizes = {dim: 2 + i for i, dim in enumerate(DIMS[model])}
    sizes = {dim: max(size, DIMS[model][dim][0]) for dim, size in sizes.items()}
    args = tuple(torch.from_numpy(array) for array in feed(sizes).values())
    options = {"opset_version": 20, "input_names": names, "output_names": ["output"]}
    if exporter == "dynamo":
        shapes = tuple(axes)
        torch.onnx.export(module, args, output, dynamo=True, dynamic_shapes=shapes, external_data=False, **options)
    else:
        dynamic = dict(zip(names, axes, strict=True)) | {"output": axes[0]}
        torch.onnx.export(module, args, output, dynamo=False, dynamic_axes=dynamic, **options)
    onnx.checker.check_model(output, full_check=True)
    session = onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"])
    for end in (0, 2):
        values = feed({dim: range_[end] for dim, range_ in DIMS[model].items()})
        with torch.inference_mode():
            right = module(*(torch.from_numpy(array) for array in values.values())).numpy()
        np.testing.assert_allclose(session.run(None, values)[0], right, atol=1e-4, rtol=1e-3)


if __name__ == "__main__":
    sys.exit(main())
