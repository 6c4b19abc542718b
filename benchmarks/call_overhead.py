"""The cost of a call in optkit's benchmark, compared with the cheapest call that the runtime offers.

    python benchmarks/call_overhead.py [--rounds 2000]

A multilayer perceptron of 4-8-2 at batch 1 takes microseconds, so the overhead of a call is visible. The same loop times each form of a call,
a hundred calls at a time, in alternating rounds; a result is the median over the rounds of the mean time of a call. The cheapest forms are
ONNX Runtime's IOBinding through the C++ session without its Python wrapper, and for PyTorch the module (or its forward, if that is cheaper)
inside one inference_mode around all calls. Common forms are also shown. The target is a ratio of at most 1.15 between optkit's bound call and
the cheapest form (median of the ratios within rounds); exit code 1 if it is missed.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from optkit.artifact import Artifact

TARGET = 1.15
CALLS = 100  # less than a time slice of the scheduler, so that most rounds contain no other process
HERE = Path(__file__).resolve()
OURS = "optkit's bound call"

Call = Callable[[], object]
Context = Callable[[], contextlib.AbstractContextManager[object]]


def main() -> int:
    """Measure every runtime, print the table, write it; 1 when the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--results", type=Path, default=HERE.parent / "results" / "call_overhead.json")
    options = parser.parse_args()
    from optkit.benchmark import load_average, this_machine
    from optkit.deps import built_with

    load = load_average()
    with tempfile.TemporaryDirectory(prefix="call-overhead-") as folder:
        found = [
            measure(runtime, Path(folder), options.rounds) for runtime in ("onnxruntime", "torchscript", "pytorch")
        ]
    facts = {"machine": this_machine().model_dump(), "versions": dict(built_with()), "load_average": load}
    document = {"target": TARGET, "rounds": options.rounds, "calls": CALLS, "found": found} | facts
    options.results.parent.mkdir(exist_ok=True)
    options.results.write_text(json.dumps(document, indent=2) + "\n")
    text = table(document)
    options.results.with_suffix(".md").write_text(text)
    print(text)
    return 0 if all(entry["ratio"] <= TARGET for entry in found) else 1


def measure(runtime: str, folder: Path, rounds: int) -> dict[str, object]:
    """Time every form of a call of one runtime in alternating rounds."""
    from optkit.runners import Device, open_runner

    artifact = _artifact(runtime, folder / runtime)
    feed = {"x": np.zeros((1, 4), np.float32)}
    with open_runner(artifact, Device.CPU, threads=1) as runner:
        cheapest, others = (_onnxruntime if runtime == "onnxruntime" else _torch)(artifact, feed)
        ours = {OURS: (runner.bind(feed), runner.calling)}
        times = _alternate(ours | cheapest | others, rounds)
    best = min(cheapest, key=lambda name: statistics.median(times[name]))
    return {
        "runtime": runtime,
        "cheapest": best,
        "ratio": statistics.median(a / b for a, b in zip(times[OURS], times[best], strict=True)),
        "us": {name: statistics.median(all_) for name, all_ in times.items()},
    }


def _alternate(forms: Mapping[str, tuple[Call, Context]], rounds: int) -> dict[str, list[float]]:
    """Return for each form the mean time of a call in each round, in us; the first two rounds warm up."""
    random, times = np.random.default_rng(0), {name: [] for name in forms}
    for number in range(rounds + 2):
        for name in random.permutation(list(forms)):
            call, context = forms[name]
            with context():
                took = _mean_us(call)
            if number >= 2:
                times[name].append(took)
    return times


def _mean_us(call: Call) -> float:
    started = time.perf_counter_ns()
    for _ in range(CALLS):
        call()
    return (time.perf_counter_ns() - started) / CALLS / 1000


def _artifact(runtime: str, folder: Path) -> "Artifact":
    from optkit.artifact.tensors import TensorSpec
    from optkit.pytorch.source import make_source
    from optkit.stages import ExportOnnx, ExportTorchScript

    source = make_source(f"{HERE}:build", folder / "source", (TensorSpec.parse("x:float32[1,4]"),), {})
    match runtime:
        case "onnxruntime":
            return ExportOnnx(exporter="torchscript", opset=17).run(source, folder / "made")
        case "torchscript":
            return ExportTorchScript().run(source, folder / "made")
        case _:
            return source


def build() -> "nn.Module":
    """Return the perceptron; the factory that optkit exports."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


Forms = dict[str, tuple[Call, Context]]


def _onnxruntime(artifact: "Artifact", feed: dict[str, np.ndarray]) -> tuple[Forms, Forms]:
    """Return the candidates for the cheapest form, and the others."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(artifact.path, options, providers=["CPUExecutionProvider"])
    binding, name = session.io_binding(), artifact.outputs[0].name
    binding.bind_cpu_input("x", feed["x"])
    binding.bind_output(name, "cpu")
    raw, bound = session._sess, binding._iobinding
    value = onnxruntime.OrtValue.ortvalue_from_numpy(feed["x"])
    cheapest: Forms = {"raw run_with_iobinding": (lambda: raw.run_with_iobinding(bound, None), contextlib.nullcontext)}
    others: Forms = {
        "session.run_with_iobinding": (lambda: session.run_with_iobinding(binding), contextlib.nullcontext),
        "session.run": (lambda: session.run(None, feed), contextlib.nullcontext),
        "session.run_with_ort_values": (
            lambda: session.run_with_ort_values([name], {"x": value}),
            contextlib.nullcontext,
        ),
    }
    return cheapest, others


def _torch(artifact: "Artifact", feed: dict[str, np.ndarray]) -> tuple[Forms, Forms]:
    """Return the candidates for the cheapest form, and the others."""
    import torch

    from optkit.artifact import Format
    from optkit.pytorch.forward import torchscript_notices_off

    with torchscript_notices_off():
        module = torch.jit.load(artifact.path).eval() if artifact.format is Format.TORCHSCRIPT else build().eval()
    x = torch.from_numpy(feed["x"])

    def with_mode_each_call() -> None:
        with torch.inference_mode():
            module(x)

    cheapest: Forms = {
        "module(x)": (lambda: module(x), torch.inference_mode),
        "module.forward(x)": (lambda: module.forward(x), torch.inference_mode),
    }
    others: Forms = {
        "inference_mode in each call": (with_mode_each_call, contextlib.nullcontext),
        "module(x) with gradients": (lambda: module(x), contextlib.nullcontext),
    }
    return cheapest, others


def table(document: dict[str, object]) -> str:
    """Return the numbers as Markdown."""
    lines = [
        "# What a call costs, against the runtime's cheapest form",
        "",
        f"Written by `benchmarks/call_overhead.py`: an MLP of 4-8-2 at batch 1, one thread, {document['calls']} calls a round, "
        f"{document['rounds']} alternating rounds, medians. Target: at most {TARGET:g}.",
        "",
        "| runtime | form | us a call |",
        "|---|---|---|",
    ]
    found = document["found"]
    assert isinstance(found, Sequence)
    for entry in found:
        lines += [f"| {entry['runtime']} | {name} | {us:.2f} |" for name, us in entry["us"].items()]
        lines.append(f"| {entry['runtime']} | **{OURS} / {entry['cheapest']}** | **{entry['ratio']:.2f}x** |")
    machine, versions = document["machine"], document["versions"]
    assert isinstance(machine, dict)
    assert isinstance(versions, dict)
    load = "" if document["load_average"] is None else f", load average {document['load_average']:.1f}"
    facts = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines += ["", f"{machine['cpu']}, {machine['cores']} cores{load}; Python {machine['python']}, {facts}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
