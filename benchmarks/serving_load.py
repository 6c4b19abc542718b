"""The packaged digits model under load on Triton and on TorchServe, with and without batching by the server.

    python benchmarks/serving_load.py [--rounds 5] [--duration-s 1.5]

The same ONNX file is packaged four times: for Triton without dynamic batching and with optkit's defaults, and for TorchServe with batch size 1
and 8. Both servers run all the time. In every round each variant is measured under every load, with the variants in random order; a ratio is
the median of the ratios within rounds, with the smallest and the largest. Then optkit's advice is derived from Triton's two variants, without
and with a limit on latency. A fifth variant follows the second advice and is compared with them in separate rounds, and again with both tools.

This Triton is the CPU server of the wheel nvidia-pytriton with our Python backend for ONNX models (tests/support/servers): the scheduler, the
statistics and the front ends are the real ones, but the execution time is not that of Triton's ONNX backend. Needs OPTKIT_TRITON
(tests/support/servers/install_triton.sh), torchserve and Java.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optkit.artifact import Artifact
    from optkit.data import Samples
    from optkit.loadtest import Advice, LoadRecord, Source

HERE = Path(__file__).resolve()
RECIPE = HERE.parents[1] / "recipes" / "digits.yaml"
CALLERS = (1, 2, 4, 8, 16, 32)
RATES = (50.0, 100.0, 200.0)
PLAIN, BATCHED, ADVISED = "triton, no batching", "triton, dynamic batching", "triton, waiting as advised"
TORCHSERVE, TORCHSERVE_8 = "torchserve, batch size 1", "torchserve, batch size 8"
MODELS = {PLAIN: "plain", BATCHED: "batched", ADVISED: "advised", TORCHSERVE: "one", TORCHSERVE_8: "eight"}
TORCHSERVE_DELAY_MS = 5
LIMIT_MS = 10.0  # of a request, for the advice with a delay


def main() -> int:
    """Measure, print the tables, write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration-s", type=float, default=1.5)
    parser.add_argument("--results", type=Path, default=HERE.parent / "results" / "serving_load.json")
    options = parser.parse_args()
    from optkit.benchmark import load_average, this_machine
    from optkit.deps import built_with
    from optkit.loadtest import perf_analyzer

    beside = Path(os.environ.get("OPTKIT_TRITON", "/nowhere"), "bin", "perf_analyzer")
    if beside.exists():
        os.environ.setdefault(perf_analyzer.ENVIRONMENT, str(beside))
    if not perf_analyzer.find():
        raise SystemExit(
            f"no perf_analyzer: expected {beside} (tests/support/servers/install_triton.sh), or {perf_analyzer.ENVIRONMENT}"
        )
    load = load_average()
    with tempfile.TemporaryDirectory(prefix="serving-load-") as folder:
        found = measure(Path(folder), options.rounds, options.duration_s)
    facts = {"machine": this_machine().model_dump(), "versions": dict(built_with()), "load_average": load}
    document = {"rounds": options.rounds, "duration_s": options.duration_s, **found, **facts}
    options.results.parent.mkdir(exist_ok=True)
    options.results.write_text(json.dumps(document, indent=1) + "\n")
    text = report(document)
    options.results.with_suffix(".md").write_text(text)
    print(text)
    return 0


def measure(folder: Path, rounds: int, duration_s: float) -> dict[str, Any]:
    """Run everything; returns records in JSON by part, and the advice."""
    artifact, samples = packaged(folder)
    with servers(folder) as at:
        first = swept(at, (PLAIN, BATCHED, TORCHSERVE, TORCHSERVE_8), rounds, duration_s, concurrency=CALLERS)
        opened = swept(at, (PLAIN, BATCHED, TORCHSERVE, TORCHSERVE_8), 1, duration_s, rate=RATES)
        advice, waiting = advised(first), advised(first, LIMIT_MS)
    parts = {"callers": first, "rates": opened}
    package_advised(folder, artifact, samples, waiting)
    with servers(folder, torchserve=False) as at:
        three = (PLAIN, BATCHED, ADVISED)
        parts["advised"] = swept(at, three, rounds, duration_s, concurrency=CALLERS)
        parts["perf_analyzer"] = swept(at, three, 1, duration_s, concurrency=CALLERS, tool="perf-analyzer")
    records = {name: [slim(variant, record) for variant, record in part] for name, part in parts.items()}
    return {"advice": advice.model_dump(), "waiting": waiting.model_dump(), "parts": records}


def slim(variant: str, record: "LoadRecord") -> dict[str, Any]:
    """Return a record as JSON without the fields that all records share."""
    return {"variant": variant, **record.model_dump(mode="json", exclude={"machine", "url"})}


def packaged(folder: Path) -> "tuple[Artifact, Samples]":
    """Export digits once, and package it for both servers."""
    from optkit.artifact.findings import BatchIndependence
    from optkit.data import Feeds, Samples
    from optkit.pytorch.source import make_source
    from optkit.recipe import load_recipe
    from optkit.serving import TorchServeServing, TritonServing, package_torchserve
    from optkit.stages import ExportOnnx

    recipe = load_recipe(RECIPE)
    source = make_source(recipe.model.source, folder / "source", recipe.inputs, recipe.dims, outputs=recipe.outputs)
    artifact = ExportOnnx(exporter="torchscript", opset=17).run(source, folder / "onnx")
    samples = Samples(recipe.inputs, recipe.dims, Feeds(recipe.data.calibration, recipe.inputs))
    for name, settings in ((PLAIN, TritonServing(batching=False)), (BATCHED, TritonServing())):
        for_triton(folder, artifact, samples, name, settings)
    for name, size in ((TORCHSERVE, 1), (TORCHSERVE_8, 8)):
        settings = TorchServeServing(batch_size=size, max_batch_delay_ms=TORCHSERVE_DELAY_MS)
        independence = BatchIndependence(dim="batch")
        package_torchserve(artifact, folder / "store", settings, name=MODELS[name], independence=independence)
    return artifact, samples


def for_triton(folder: Path, artifact: "Artifact", samples: "Samples", variant: str, settings: object) -> None:
    """Add a variant to the repository."""
    from optkit.artifact.findings import BatchIndependence
    from optkit.serving import make_golden, package_triton

    package_triton(
        artifact,
        folder / "models",
        settings,
        name=MODELS[variant],
        independence=BatchIndependence(dim="batch"),
        sample=samples.at({dim: r.opt for dim, r in artifact.dims.items()}),
        golden=make_golden(artifact, samples),
    )


def package_advised(folder: Path, artifact: "Artifact", samples: "Samples", advice: "Advice") -> None:
    """Add the variant that follows the advice, from its printed lines."""
    import yaml

    from optkit.serving import TritonServing

    [entry] = yaml.safe_load(advice.recipe)["serve"]
    for_triton(folder, artifact, samples, ADVISED, TritonServing.model_validate(entry))


@contextlib.contextmanager
def servers(folder: Path, *, torchserve: bool = True) -> "Iterator[dict[str, tuple[str, Source]]]":
    """Start the servers; yields variant -> its URL and the source of its requests."""
    from optkit.loadtest import Source
    from optkit.serving.torchserve.server import serving
    from optkit.serving.triton.server import TritonServer, find_triton

    golden = Source(repository=folder / "models")
    with contextlib.ExitStack() as stack:
        triton = stack.enter_context(TritonServer(find_triton(), folder / "models", limit_s=120))
        at = dict.fromkeys((PLAIN, BATCHED, ADVISED), (f"http://{triton.http}", golden))
        if torchserve:
            running = stack.enter_context(serving(folder / "store", limit_s=120))
            keyed = Source(
                repository=folder / "models",
                repository_model=MODELS[BATCHED],
                headers=running._authorization("inference"),
            )
            for variant in (TORCHSERVE, TORCHSERVE_8):
                at[variant] = f"{running.inference_url}/predictions/{MODELS[variant]}", keyed
        yield at


def swept(
    at: "dict[str, tuple[str, Source]]",
    variants: Sequence[str],
    rounds: int,
    duration_s: float,
    **load: Any,
) -> "list[tuple[str, LoadRecord]]":
    """Put every variant under every load in each round, in random order."""
    from optkit.loadtest import LoadSettings, load_test, parse_target

    settings = LoadSettings(**({"tool": "asyncio", "warmup_s": 0.5, "duration_s": duration_s, "limit_s": 60} | load))
    order, found = random.Random(0), []
    for turn in range(rounds):
        for variant in order.sample(list(variants), len(variants)):
            print(f"round {turn + 1}: {variant}", file=sys.stderr)
            url, source = at[variant]
            target = parse_target(url, None if "/predictions/" in url else MODELS[variant])
            found.append((variant, load_test(target, settings, source)))
    return found


def advised(found: "Sequence[tuple[str, LoadRecord]]", max_latency_ms: float | None = None) -> "Advice":
    """Return the advice from the median round of each load."""
    from optkit.loadtest import advise
    from optkit.loadtest.knee import knees_of

    records = []
    for wanted in (PLAIN, BATCHED):
        rounds = [record for variant, record in found if variant == wanted]
        points = [
            sorted((record.points[i] for record in rounds), key=lambda point: point.samples_per_s)[len(rounds) // 2]
            for i in range(len(rounds[0].points))
        ]
        knees = tuple(knees_of(points, rounds[0].settings.duration_s))
        records.append(rounds[0].model_copy(update={"points": tuple(points), "knees": knees}))
    return advise(records, max_latency_ms=max_latency_ms)


def report(document: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    machine, advice = document["machine"], document["advice"]
    lines = [
        "# The packaged digits model under load",
        "",
        f"Written by `benchmarks/serving_load.py`: one ONNX file on Triton 2.51 (release 24.10) and TorchServe 0.12, both on this machine "
        f"with the client; {document['rounds']} rounds, each variant in random order, {document['duration_s']:g} s a load after 0.5 s that are "
        f"dropped; medians over the rounds. `ratio` is that of samples/s to the same server without batching, within rounds (smallest to "
        f"largest). Requests hold one golden sample.",
        "",
        "**Triton's executions run in a Python backend of ours over ONNX Runtime, because its own backend is in no wheel: scheduler, "
        "statistics and front ends are the real ones, absolute numbers are not those of Triton's own ONNX backend.** Triton gets binary "
        "tensors and TorchServe JSON, as their clients send them, so the two servers differ in that too.",
        "",
        *busy(document),
        "## Closed loops",
        "",
        *table(document["parts"]["callers"], {BATCHED: PLAIN, TORCHSERVE_8: TORCHSERVE}),
        "",
        "## Open loops",
        "",
        "One round, Poisson arrivals, latencies from the scheduled time. A rate that a server cannot serve shows in its latency.",
        "",
        *table(document["parts"]["rates"], {}),
        "",
        "## The advice",
        "",
        "From the median rounds of Triton's two variants, without a limit on latency:",
        "",
        *advice_lines(advice),
        f"For requests that may take {LIMIT_MS:g} ms (`--max-latency-ms {LIMIT_MS:g}`):",
        "",
        *advice_lines(document["waiting"]),
        "| batch | executions | ms an execution | samples/s of an instance |",
        "|---|---|---|---|",
        *(
            f"| {one['size']} | {one['executions']} | {one['execution_ms']:.3f} | {1000 * one['size'] / one['execution_ms']:,.0f} |"
            for one in advice["curve"]
        ),
        "",
        "The variant that waits so, against the other two, in rounds of their own without TorchServe:",
        "",
        *table(document["parts"]["advised"], {BATCHED: PLAIN, ADVISED: PLAIN}),
        "",
        "## The same by perf_analyzer",
        "",
        "One round, the same loads on the same server. A tool is best compared with itself: its client is C++ and costs less.",
        "",
        *table(document["parts"]["perf_analyzer"], {BATCHED: PLAIN, ADVISED: PLAIN}),
        "",
        f"{machine['cpu']}, {machine['cores']} cores, load average {document['load_average'] or 0:.1f}; Python {machine['python']}, "
        + ", ".join(f"{name} {version}" for name, version in document["versions"].items())
        + ".",
    ]
    return "\n".join(lines) + "\n"


def advice_lines(advice: dict[str, Any]) -> list[str]:
    """Return the reasons and the lines for the configuration."""
    paste = advice["config"].replace("\n", "\n    ")
    return [*(f"- {reason}" for reason in advice["reasons"]), "", f"    {paste}", ""]


def busy(document: dict[str, Any]) -> list[str]:
    """Return a warning if other processes competed for the CPU."""
    load, cores = document["load_average"] or 0, document["machine"]["cores"]
    if load <= cores:
        return []
    return [
        f"**The machine was busy: load average {load:.1f} on {cores} cores when this began. What the spreads below hold is mostly that; "
        f"no ratio whose range holds 1 says anything, and neither does an advice derived from such figures. To be repeated on a quiet "
        f"machine.**",
        "",
    ]


def table(records: Sequence[dict[str, Any]], references: dict[str, str]) -> list[str]:
    """Return one row for each load of each variant."""
    lines = [
        "| variant | load | samples/s | p50 ms | p99 ms | batch | client | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    variants = list(
        dict.fromkeys(record["variant"] for record in sorted(records, key=lambda r: list(MODELS).index(r["variant"])))
    )
    for variant in variants:
        rounds = [record for record in records if record["variant"] == variant]
        for i, first in enumerate(rounds[0]["points"]):
            points = [record["points"][i] for record in rounds]
            load = f"{first['concurrency']} callers" if first["concurrency"] else f"{first['rate_per_s']:g}/s"
            batches = [point["server"]["mean_batch"] for point in points if point["server"]]
            cells = [
                variant,
                load,
                f"{middle(point['samples_per_s'] for point in points):,.0f}",
                *(milliseconds(point[name] for point in points) for name in ("p50_ms", "p99_ms")),
                f"{statistics.median(batches):.2f}" if batches else "",
                f"{middle(point['client_cpu_share'] for point in points):.0%}",
                ratio(points, [r["points"][i] for r in records if r["variant"] == references.get(variant)]),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def middle(values: "Iterator[float]") -> float:
    """Return the median."""
    return statistics.median(values)


def milliseconds(values: "Iterator[float | None]") -> str:
    """Return the median of the present values, or an empty text if there are none."""
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):.2f}" if known else ""


def ratio(points: Sequence[dict[str, Any]], reference: Sequence[dict[str, Any]]) -> str:
    """Return the median of the ratios within rounds, with the smallest and the largest."""
    if not reference:
        return ""
    rates = [(a["samples_per_s"], b["samples_per_s"]) for a, b in zip(points, reference, strict=True)]
    ratios = [ours / theirs for ours, theirs in rates if theirs]
    if not ratios:
        return ""
    spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
    return f"**{statistics.median(ratios):.2f}x**{spread}"


if __name__ == "__main__":
    if not shutil.which("java"):
        sys.exit("TorchServe needs Java")
    sys.exit(main())
