"""The page: what it shows of the records, that it needs nothing else, and that no text of the user's can be more than text."""

import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from optkit.artifact.findings import CallParts, ConcurrentLoad, GpuConditions, Knee, NotRun
from optkit.pipeline.history import HistoryEntry
from optkit.pipeline.records import RunRecord
from optkit.report.html import page, write_report
from optkit.report.measured import bench_notes, bench_tables
from optkit.report.pictures import Point, distributions, over_time, throughput, trade_off
from optkit.report.view import view_of
from tests.support.runs import bench, calibrated, diagnosis, parity, quantization, run_record, shift, step

HOSTILE = "<script>alert('x')</script>\"'><img src=http://evil.example/x onerror=alert(1)> $x^2$ {{ 7*7 }} \x1b[31m & ü"


class Outline(HTMLParser):
    """What of a page can be checked without a browser."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.headings: list[int] = []
        self.loads: list[str] = []
        self.links: list[str] = []
        self.labels: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        if tag in ("h1", "h2", "h3", "h4"):
            self.headings.append(int(tag[1]))
        if found.get("id"):
            self.ids.append(found["id"] or "")
        if tag == "a":
            self.links.append(found.get("href") or "")
        elif tag != "use":
            self.loads += [
                value or "" for key, value in attrs if key in ("src", "href", "xlink:href", "srcset", "data")
            ]
        if found.get("role") == "img":
            self.labels.append(found.get("aria-label") or "")


def outline(record: RunRecord) -> tuple[str, Outline]:
    text = page(record, Path("build/tiny"))
    return text, Outline(text)


def test_the_page_shows_verdict_variants_and_how_to_make_each_again() -> None:
    text, found = outline(run_record())
    for part in (
        "quantize-static wins: it runs 4.00x as fast as source (mean over batch 1, 8), keeps its accuracy",
        "the fastest of 2 that passed every gate",
        "optkit run recipes/tiny.yaml -o build/tiny --step quantize-static",
        "optkit bench build/tiny/quantize-static/model.onnx --batch 8",
        "torch 2.13.0, onnxruntime 1.31.1",
        "CPU 9000, 4 cores, 16.0 GiB",
        "quantize-static-1",
        "seeded random",
    ):
        assert part in text
    assert {"variants", "trade-off", "latency", "throughput", "time", "parity", "notes", "reproduce"} <= set(found.ids)
    assert "not-run" not in found.ids
    assert "history" not in found.ids


def test_the_page_loads_nothing_and_is_whole() -> None:
    text, found = outline(run_record())
    assert found.loads == ["data:,"]  # the icon
    assert all(link.startswith("#") and link[1:] in found.ids for link in found.links)
    assert "url(http" not in text
    assert len(found.ids) == len(set(found.ids))
    assert len(text) < 3_000_000
    assert found.tags.count("h1") == 1
    assert all(later - earlier <= 1 for earlier, later in zip(found.headings, found.headings[1:], strict=False))


def test_every_picture_is_told_in_words_with_the_numbers() -> None:
    _, found = outline(run_record())
    assert len(found.labels) == 2 * 4  # for a screen and a phone: trade-off, latency, throughput, steps
    assert any("quantize-static median 0.250 ms" in label for label in found.labels)
    assert any(label.startswith("Scatter plot of 3 variants") and "0.250 ms" not in label for label in found.labels)


def test_colours_of_the_pictures_come_from_the_theme() -> None:
    text, _ = outline(run_record())
    svg = "".join(re.findall(r"<svg.*?</svg>", text, re.S))
    assert "var(--series-1)" in svg
    assert "var(--ink)" in svg
    assert re.findall(r"#(?!000000|ffffff)[0-9a-f]{6}", svg) == []


def test_hostile_text_is_only_text() -> None:
    evil = step(
        HOSTILE, notes=(HOSTILE,), parity=parity(passed=False), failures=(HOSTILE,), quantization=quantization(HOSTILE),
        calibration=calibrated(diagnosis(HOSTILE)), shifts=(shift(HOSTILE),),
    )  # fmt: skip
    record = run_record(
        recipe=HOSTILE,
        steps=(evil, step("lost", status="failed", reason=HOSTILE, parity=None)),
        bench=bench({"source": 1.0, HOSTILE: 0.5}, not_run=(NotRun(artifact=HOSTILE, reason=HOSTILE),)),
        failures=(HOSTILE,),
        winner=None,
    )
    text, found = outline(record)
    assert found.tags.count("script") == 1  # the page's own
    assert "img" not in found.tags
    assert "<script>alert" not in text
    assert "{{ 7*7 }}" in text


def test_the_policy_of_the_page_lets_only_its_own_script_run() -> None:
    text, _ = outline(run_record())
    assert "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-" in text
    assert "onclick" not in text


def test_what_was_not_made_or_measured_is_shown_with_its_reason() -> None:
    steps = (
        step("export-onnx"),
        step("engine", status="skipped", reason="tensorrt is not installed", parity=None),
        step("broken", status="failed", reason="no such operator", parity=None),
    )
    missing = (NotRun(artifact="export-onnx", reason="needs a GPU"),)
    record = run_record(steps=steps, bench=bench({"source": 1.0}, not_run=missing), winner=None)
    text, found = outline(record)
    assert "not-run" in found.ids
    for part in ("tensorrt is not installed", "no such operator", "needs a GPU", "No artifact passed every gate"):
        assert part in text


def test_an_engine_that_could_not_be_run_is_not_shown_as_equal() -> None:
    engine = step("engine", unproven="no NVIDIA driver here", parity=None, accuracy=None)
    record = run_record(steps=(engine, step("export-onnx"), step("quantize-static")))
    text, _ = outline(record)
    assert "parity and accuracy: no NVIDIA driver here" in text
    shown = [row.verdict for row in view_of(record, Path("build/tiny"), ()).rows]
    assert shown == ["reference", "not tested", "✓ equal", "✓ equal"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"bench": None, "winner": None}, "2 of 2 artifacts were made; this run has no benchmark"),
        (
            {"bench": None, "winner": None, "bench_error": "no memory"},
            "There is no winner, because the benchmark failed: no memory",
        ),
        (
            {"failures": ("x: too large",)},
            "The run failed. The best artifact that passed every gate is quantize-static: it runs",
        ),
    ],
)
def test_a_run_that_came_to_less_has_a_page_too(changes: dict[str, object], sentence: str) -> None:
    text, _ = outline(run_record(**changes))
    assert sentence in text


def test_parts_of_a_gpu_call_and_knees_are_drawn_where_they_are_known() -> None:
    record = run_record()
    assert record.bench is not None
    parts = CallParts(enqueue_ms=0.01, copy_in_ms=0.02, compute_ms=0.5, copy_out_ms=0.03)
    measured = tuple(m.model_copy(update={"parts": parts}) for m in record.bench.measurements)
    knee = Knee(artifact="quantize-static", batch=8, samples_per_s=1.0, rule="within 5 % of the most")
    drawn, _ = outline(run_record(bench=record.bench.model_copy(update={"measurements": measured, "knees": (knee,)})))
    assert "One call on the GPU" in drawn
    assert "copy out 0.03), enqueue on the host 0.01" in drawn
    assert "A ring marks the knee: within 5 % of the most" in drawn


def test_what_a_gpu_did_is_told_beside_the_parts() -> None:
    record = run_record()
    assert record.bench is not None
    parts = CallParts(enqueue_ms=0.01, copy_in_ms=0.02, compute_ms=0.5, copy_out_ms=0.03)
    gpu = GpuConditions(
        sm_clock_mhz=1980.0, memory_clock_mhz=None, max_temperature_c=61.0, mean_power_w=300.0, energy_mj_per_inference=150.0,
        throttle_reasons=("software power cap",), throttled_calls=7, throttled_calls_kept=2,
    )  # fmt: skip
    facts = {"device": "cuda", "cuda_graph": True, "parts": parts, "gpu": gpu, "on_cpu": {"Shape": 2}, "nodes": 9}
    measured = tuple(m.model_copy(update=facts) for m in record.bench.measurements)
    load = ConcurrentLoad(
        artifact="export-onnx", batch=8, callers=2, streams=2, cuda_graph=True, calls=50, samples_per_s=99.0, p50_ms=1.0,
        p90_ms=None, p95_ms=None, p99_ms=None,
    )  # fmt: skip
    changed = record.bench.model_copy(update={"measurements": measured, "concurrency": (load,)})
    text, _ = outline(run_record(bench=changed))
    for words in (
        "5 dropped, 2 kept: software power cap", "<td class=\"n\">150</td>", "<td class=\"n\">1980</td>",
        "2 of its 9 nodes ran on the CPU: 2 Shape.",
        "copies between host and device, replayed from a CUDA graph, one caller on one stream",
        "Several callers at once, each on its own CUDA stream, each replaying a CUDA graph",
    ):  # fmt: skip
        assert words in text, words
    shown = Console(width=80, record=True, file=StringIO())
    for table in bench_tables(changed):
        shown.print(table)
    terminal = shown.export_text()
    assert "compute" in terminal
    assert "dropped" in terminal
    assert "several callers at once, each on its own CUDA stream" in " ".join(terminal.split())
    assert "replayed from a CUDA graph" in bench_notes(changed)[0]


def test_the_history_is_drawn_for_this_machine_alone() -> None:
    now = HistoryEntry.of(run_record())
    before = now.model_copy(update={"created": "2026-01-01T00:00:00", "commit": "abcdef123456"})
    elsewhere = now.model_copy(update={"machine": "another"})
    text = page(run_record(), Path("build/tiny"), [before, elsewhere, now])
    assert "Median latency at batch 8 in 2 runs of this recipe on this machine" in text
    assert "1 runs in the history were made on other machines and are not drawn" in text
    assert "01-01 00:00 abcdef1" in text


def text_of(html: str) -> str:
    """Return the words of a part of the page, one space between two."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_the_layers_of_a_search_are_shown_with_the_frontier_and_what_keeps_them() -> None:
    text, found = outline(
        run_record(bench=None, winner=None, steps=(step("export-onnx"), step("int8", quantization=quantization())))
    )
    words = text_of(text[text.index('<section id="layers"') : text.index('<section id="notes"')])
    assert "1 of 3 layers stay in float and reach 0.95, measured by m.py:evaluate; the limit is 0.94." in words
    assert "/conv1/Conv Conv 9.5 300.0 kB float" in words
    assert "/fc/Gemm Gemm 31.2 2.0 MB INT8" in words
    assert "/unused/MatMul MatMul 0 B INT8" in words  # no effect
    assert "0 0.5 0.250 1 0.95 0.300 chosen 3 0.96 " in words
    assert "exclude: - /conv1/Conv" in words
    labels = [
        label
        for label in found.labels
        if label.startswith("Accuracy of int8 by layers in float, measured by m.py:evaluate")
    ]
    assert len(labels) == 2
    assert labels[0].endswith("0.5 with 0 layers in float, 0.96 with 3. Chosen: 1, with 0.95.")


def test_a_search_that_reached_nothing_chooses_nothing() -> None:
    failed = quantization(failure="0.9 with every layer in float", value=None)
    text, found = outline(run_record(bench=None, winner=None, steps=(step("int8", quantization=failed),)))
    assert "The limit was not reached, measured by m.py:evaluate: 0.9 with every layer in float." in text
    assert "To keep the same layers" not in text
    assert any(label.endswith("None reached the limit.") for label in found.labels)


@pytest.mark.parametrize("spread", [1.01, 3.0, 20.0, 5000.0])
def test_axes_show_numbers_and_no_tex(spread: float) -> None:
    """Between decades matplotlib labels a logarithmic axis in TeX, which stands there as it is written."""
    measurements = bench({"source": 1.0, "export-onnx": 1 / spread}).measurements
    places = {"source": 0, "export-onnx": 1}
    points = [Point(name, place, 1 / spread**place, 1e-3 / spread**place, 100, False) for name, place in places.items()]
    for picture in (
        throughput(measurements, places, {}),
        distributions(measurements, places),
        trade_off(points, 1, "largest error", smaller_is_better=True),
        over_time({"source": [(0, 1.0), (1, 1 / spread)]}, places, ["a", "b"]),
    ):
        shown = re.findall(r"<text[^>]*>([^<]*)</text>", picture)
        assert len(shown) > 4
        assert not [text for text in shown if "$" in text or "\\" in text]


def test_many_layers_lie_folded() -> None:
    layers = quantization().layers * 7
    for shown, is_open in ((layers[:20], True), (layers, False)):
        text, _ = outline(
            run_record(bench=None, winner=None, steps=(step("int8", quantization=quantization(layers=shown)),))
        )
        assert (f"<details open><summary>{len(shown)} layers" in text) is is_open


def test_no_section_without_a_search_or_a_calibration() -> None:
    _, found = outline(
        run_record(bench=None, winner=None, steps=(step("int8", quantization=quantization(layers=(), frontier=())),))
    )
    assert not {"layers", "calibration"} & set(found.ids)


def test_what_the_calibration_data_was_like_is_shown() -> None:
    ill = step("int8", calibration=calibrated(diagnosis()), shifts=(shift(),))
    well = step(
        "entropy",
        calibration=calibrated(
            diagnosis(suggested_samples=64, outliers=(), duplicates=(), constants={}, long_tails=None)
        ),
    )
    text, _ = outline(run_record(bench=None, winner=None, steps=(ill, well)))
    words = text_of(text[text.index('<section id="calibration"') : text.index('<section id="notes"')])
    assert (
        "int8 64: too few, use 128 1, worst sample 7 (/relu/out 4.5x) 2 x in 2 samples /relu/out: 99.9 % of values in 2.0% of the range"
        in words
    )
    assert "entropy 64: enough, 64 are sufficient none none none none" in words
    assert "int8: input &#39;x&#39;: 3 ± 1 in the calibration data and 0 ± 1 in the evaluation data" in words


def test_the_same_records_give_the_same_page(tmp_path: Path) -> None:
    pages = [write_report(run_record(), folder).read_bytes() for folder in (tmp_path, tmp_path)]
    assert pages[0] == pages[1]


def busy_run(share: float = 0.5) -> RunRecord:
    """Return a run in which the source had to wait for processors in every block."""
    record = run_record()
    assert record.bench is not None
    changed = tuple(
        m.model_copy(update={"blocks_waited": (share,) * 10}) if m.artifact == "source" else m
        for m in record.bench.measurements
    )
    ups = tuple(s.model_copy(update={"cpu_contended_blocks": 10 if share else 0}) for s in record.bench.speed_ups)
    rows = (("source", "export-onnx", "quantize-static"),) * 10
    return record.model_copy(
        update={"bench": record.bench.model_copy(update={"measurements": changed, "speed_ups": ups, "order": rows})}
    )


def test_what_a_busy_machine_gave_is_never_shown_without_that() -> None:
    text, _ = outline(busy_run())
    assert "quantize-static wins, but the machine was busy" in text
    assert "Measured while the machine was busy: in 10 of 10 blocks other processes competed for the CPU" in text
    assert (
        "source waited for up to 50% of the time that it was ready to run (load average 0.1 on 4 cores at the start)"
        in text
    )
    assert "4.00x*" in text
    assert "faster, busy" in text
    quiet, _ = outline(busy_run(share=0.0))
    for word in ("busy", "4.00x*"):
        assert word not in quiet


def test_blocks_that_were_left_out_are_told() -> None:
    record = run_record()
    assert record.bench is not None
    text, _ = outline(record.model_copy(update={"bench": record.bench.model_copy(update={"left_out": 3})}))
    assert "3 blocks measured again, because the machine was busy (load average 0.1 on 4 cores at the start)" in text
    assert "wins: it" in text
