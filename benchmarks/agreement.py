"""Check that optkit's benchmark agrees with a second tool on the same models: torch.utils.benchmark, for PyTorch and ONNX Runtime.

    python benchmarks/agreement.py [--rounds 10] [--models stack,resnet18,minilm]

Each round times one artifact with both tools, in random order, with a new session each, one thread and batch 1. Both time the same call, the
one that optkit binds. The result of a tool is its median: optkit's p50, and the median of many `Timer.timeit` of 0.1 ms or of one call
(`Timer.blocked_autorange` averages over many milliseconds; on a busy machine, this includes the time of other processes). The table shows the
ratio of the two with the 95 % interval over the rounds. The target is a ratio within 3 % of 1 or an interval that contains 1; exit code 1 if
it is missed. The last column is the same timer on `session.run` and on `module(x)` inside inference_mode, as users call them.

In a third of the runs, one of the nine intervals misses 1 by chance: measure a row that differs again before you draw a conclusion.

onnxruntime_perf_test is not in the wheel of ONNX Runtime or in a Debian package (it is built from source); perf_analyzer needs a server.
Weights are random and seeded, which does not change the speed.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ab_null
import export_overhead
import numpy as np

if TYPE_CHECKING:
    from optkit.artifact import Artifact
    from optkit.data import Samples

WITHIN = 0.03
BLOCK_S = 0.0001  # of the calls that torch.utils.benchmark averages
SECONDS = 0.3  # of the counted calls of either tool in a round
HERE = Path(__file__).resolve()


def main() -> int:
    """Measure every artifact, print the table, write it; 1 when the tools do not agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--models", type=lambda text: text.split(","), default=["stack", "resnet18", "minilm"])
    parser.add_argument("--results", type=Path, default=HERE.parent / "results" / "agreement.json")
    options = parser.parse_args()
    from optkit.benchmark import load_average, this_machine
    from optkit.data import Samples
    from optkit.deps import built_with

    found, load = [], load_average()
    for model in options.models:
        with tempfile.TemporaryDirectory(prefix="agreement-") as folder:
            for runtime, artifact in _artifacts(model, Path(folder)).items():
                entry = _agreement(artifact, Samples(artifact.inputs, artifact.dims), options.rounds)
                found.append({"model": model, "runtime": runtime} | entry)
                print(_row(found[-1]), flush=True)
    facts = {"machine": this_machine().model_dump(), "versions": dict(built_with()), "load_average": load}
    options.results.parent.mkdir(exist_ok=True)
    options.results.write_text(
        json.dumps({"within": WITHIN, "rounds": options.rounds, "found": found} | facts, indent=2) + "\n"
    )
    options.results.with_suffix(".md").write_text(_table(found, options.rounds, facts))
    return 0 if all(entry["agrees"] for entry in found) else 1


def _agreement(artifact: "Artifact", samples: "Samples", rounds: int) -> dict[str, object]:
    from optkit.benchmark.statistics import intervals

    tools = {"optkit": _optkit, "torch": _same_call, "users": _users_call}
    random, p50_ms = np.random.default_rng(0), {name: [] for name in tools}
    for _ in range(rounds):
        for name in random.permutation(list(tools)):
            p50_ms[name].append(tools[name](artifact, samples))
    ratio = intervals([math.log(a / b) for a, b in zip(p50_ms["optkit"], p50_ms["torch"], strict=True)])
    holds_1 = ratio.low is not None and ratio.high is not None and ratio.low <= 1 <= ratio.high
    return {
        **{f"{name}_ms": float(np.median(found)) for name, found in p50_ms.items()},
        "ratio": ratio.ratio,
        "low": ratio.low,
        "high": ratio.high,
        "agrees": holds_1 or abs(ratio.ratio - 1) <= WITHIN,
        "p50_ms": p50_ms,
    }


def _optkit(artifact: "Artifact", samples: "Samples") -> float:
    from optkit.benchmark import BenchSettings, measure

    settings = BenchSettings(batches=(1,), threads=1, block_s=SECONDS, min_blocks=1, max_blocks=1)
    return measure({"it": artifact}, samples, settings).measurements[0].p50_ms


def _same_call(artifact: "Artifact", samples: "Samples") -> float:
    from optkit.runners import open_runner

    with open_runner(artifact, threads=1) as runner, runner.calling():
        return _torch_benchmark(runner.bind(_feed(artifact, samples)))


def _users_call(artifact: "Artifact", samples: "Samples") -> float:
    import torch

    feed = _feed(artifact, samples)
    call = (_onnxruntime_call if artifact.path.suffix == ".onnx" else _torch_call)(artifact, feed)
    with torch.inference_mode():
        return _torch_benchmark(call)


def _feed(artifact: "Artifact", samples: "Samples") -> dict[str, np.ndarray]:
    return samples.at({name: 1 if name == "batch" else r.opt for name, r in artifact.dims.items()})


def _torch_benchmark(call: Callable[[], object]) -> float:
    from torch.utils.benchmark import Timer

    timer = Timer("call()", globals={"call": call}, num_threads=1)
    number = max(1, round(BLOCK_S / timer.timeit(5).median))
    end, medians = time.perf_counter() + SECONDS, []
    while len(medians) < 5 or time.perf_counter() < end:
        medians.append(timer.timeit(number).median)
    return float(np.median(medians)) * 1000


def _onnxruntime_call(artifact: "Artifact", feed: dict[str, np.ndarray]) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(artifact.path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feed)


def _torch_call(artifact: "Artifact", feed: dict[str, np.ndarray]) -> Callable[[], object]:
    import torch

    from optkit.artifact import Format
    from optkit.pytorch.forward import torchscript_notices_off
    from optkit.pytorch.source import load_module

    with torchscript_notices_off():
        scripted = artifact.format is Format.TORCHSCRIPT
        module = torch.jit.load(artifact.path).eval() if scripted else load_module(artifact)
    inputs = [torch.from_numpy(feed[spec.name]) for spec in artifact.inputs]
    return lambda: module(*inputs)


def _artifacts(model: str, folder: Path) -> "dict[str, Artifact]":
    """Return the model as PyTorch, TorchScript and ONNX."""
    from optkit.artifact.tensors import DimRange, TensorSpec
    from optkit.pytorch.source import make_source
    from optkit.stages import ExportOnnx, ExportTorchScript

    if model == "stack":
        target, args = f"{ab_null.HERE}:build", {"layers": ab_null.LAYERS}
        texts: Sequence[str] = (f"x:float32[batch,{ab_null.WIDTH}]",)
        ranges = {"batch": (1, 4, 8)}
    else:
        target, args = f"{export_overhead.HERE}:{model}", {}
        texts, ranges = export_overhead.INPUTS[model], export_overhead.DIMS[model]
    dims = {name: DimRange(min=a, opt=b, max=c) for name, (a, b, c) in ranges.items()}
    inputs = tuple(TensorSpec.parse(text) for text in texts)
    source = make_source(target, folder / "source", inputs, dims, args=args)
    return {
        "PyTorch": source,
        "TorchScript": ExportTorchScript().run(source, folder / "torchscript"),
        "ONNX Runtime": ExportOnnx(exporter="torchscript", opset=17).run(source, folder / "onnx"),
    }


def _row(entry: dict[str, object]) -> str:
    verdict = "agrees" if entry["agrees"] else "**differs**"
    return (
        f"| {entry['model']} | {entry['runtime']} | {entry['optkit_ms']:.4g} | {entry['torch_ms']:.4g} "
        f"| {entry['ratio']:.3f} ({entry['low']:.3f} to {entry['high']:.3f}) | {verdict} | {entry['users_ms']:.4g} |"
    )


def _table(found: Sequence[dict[str, object]], rounds: int, facts: dict[str, object]) -> str:
    machine, versions = facts["machine"], facts["versions"]
    assert isinstance(machine, dict)
    assert isinstance(versions, dict)
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines = [
        "# Agreement with torch.utils.benchmark",
        "",
        f"Written by `benchmarks/agreement.py`: batch 1, one thread, {rounds} rounds with fresh sessions for both tools in random order. "
        f"Target: within {WITHIN:.0%}, or an interval that holds 1. onnxruntime_perf_test is in no wheel and no Debian package.",
        "",
        "| model | runtime | optkit p50 ms | torch median ms | ratio (95 % interval) | | as users call it, ms |",
        "|---|---|---|---|---|---|---|",
        *map(_row, found),
        "",
        f"{machine['cpu']}, {machine['cores']} cores, load average {facts['load_average']:.1f}; Python {machine['python']}, {libraries}.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
