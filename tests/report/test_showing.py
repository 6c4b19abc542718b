"""What a record shows of itself: in a notebook, through rich, and as text; no name in it is more than a name."""

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

import optkit
from optkit.api.ab import AbRecord, VariantTimes
from optkit.api.check import CheckRecord
from optkit.api.inspect import Examination, Inspection
from optkit.api.package import PackageRecord
from optkit.artifact import Artifact, Format, Passport
from optkit.artifact.calibration import CalibrationKey, CalibrationResult
from optkit.artifact.findings import Latencies, Tolerance
from optkit.benchmark import BenchSettings, SelfTest
from optkit.benchmark.bench_record import SelfTestRecord
from optkit.benchmark.changes import Limits
from optkit.loadtest import Advice, LoadRecord, LoadSettings
from optkit.loadtest.load_record import LoadPoint
from optkit.pipeline.baseline import of_run
from optkit.pipeline.compare import compare
from optkit.pipeline.diff import BuildDiff, Change
from optkit.pipeline.plan import Plan
from optkit.pipeline.verify import Verification
from optkit.pipeline.verify_artifact import Difference
from optkit.recipe import Recipe
from optkit.record import Document
from optkit.report.showing import kind_of, shown
from optkit.serving import Packaged
from optkit.serving.smoke import Replay, SmokeRecord
from optkit.serving.triton.lint import Finding, LintRecord, Severity
from tests.support import ROOT
from tests.support.measured import measurement, speed_up
from tests.support.runs import MACHINE, bench, diagnosis, parity, quantization, run_record, shift, step

HOSTILE = "<script>alert(1)</script>[bold]a:100:b[/bold] & \"quoted\" 'x'"


class Content(HTMLParser):
    """The tags, attributes and texts of HTML, whose tags must close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.styles: list[str] = []
        self.cells: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.styles += [value or "" for name, value in attrs if name == "style"]
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if {"td", "th"} & set(self._open):
            self.cells[-1] += data


@pytest.fixture(autouse=True)
def front_door() -> None:
    """Use a name of `optkit`, which lets records show themselves."""
    assert optkit.Passport is Passport


def passport(name: str = "m.onnx", **changes: object) -> Passport:
    artifact = Artifact(
        path=Path.cwd() / name, format=Format.ONNX, precision="int8", inputs=(), outputs=(), dims={},
        sha256="0", built_with={}, quantization=quantization(name), notes=(f"note of {name}",),
    )  # fmt: skip
    return Passport(artifact=artifact, stage="quantize-static", parity=parity(), shifts=(shift(name),)).model_copy(
        update=changes
    )


def load_record(name: str) -> LoadRecord:
    point = LoadPoint(
        concurrency=1, rate_per_s=None, latency_from="sent", warmup=0, sent=10, answered=9, failed=1, failures={name: 1},
        duration_s=1, requests_per_s=9, samples_per_s=9, mean_ms=1, p50_ms=1, p90_ms=None, p95_ms=None, p99_ms=None, max_ms=1,
        client_cpu_share=0, client_late_mean_ms=None, client_late_max_ms=None, client_limited=None, server=None,
    )  # fmt: skip
    advice = Advice(
        pays=False, preferred_batch_size=None, max_queue_delay_us=None, reasons=(name,), curve=(), recipe="", config=""
    )
    return LoadRecord(
        url="http://x", server="triton", protocol="http", model=name, version=None, batching=None, tool="asyncio",
        tool_reason="asked", data=name, settings=LoadSettings(concurrency=(1,)), request_bytes=1, points=(point,),
        advice=advice, machine=MACHINE, load_average=None,
    )  # fmt: skip


def records(name: str) -> Iterator[Document]:
    """Yield one record of each kind that a function returns, with a name of the caller's choice in it."""
    times = Latencies(**measurement(name, [1.0] * 60).model_dump(include=set(Latencies.model_fields)))
    variant = VariantTimes(url=name, connect_ms=1.0, first_call_ms=1.0, latencies=times)
    yield AbRecord(
        a=variant, b=variant, machine=MACHINE, settings=BenchSettings(), load_before=None, values=name, requests=1,
        tolerance=Tolerance(), answers=(), order=(), speed_up=speed_up(name, 1.0, 1.1), max_regression=None,
        failures=(name,), warnings=(f"warned of {name}",), interrupted=False,
    )  # fmt: skip
    yield bench({name: 1.0, f"{name}2": 0.5})
    found = SelfTest(
        trials=(), coverage=1, coverage_low=1, coverage_high=1, free_coverage=None, false_verdicts=0, sd_log_ratio=None
    )
    yield SelfTestRecord(artifact=name, machine=MACHINE, settings=BenchSettings(), load_before=None, found=found)
    yield passport(name)
    yield CheckRecord(parity=parity(passed=False), batch_independence=None, failures=(name,))
    before, now = (run_record({"source": 1.0, name: ms}) for ms in (0.5, 0.9))
    yield compare(of_run(before, Path("old")), of_run(now, Path("new")), Limits(max_regression=0.05))
    yield Examination(
        optkit=name, machine=MACHINE, libraries=(), onnxruntime_providers=(), tensorrt=None, triton=None, engines=()
    )
    yield Inspection(artifact=passport(name).artifact, size_bytes=1000, onnx=None, passport=passport(name))
    finding = Finding(
        rule="r", severity=Severity.ERROR, model=name, file="config.pbtxt", line=3, message=name, advice="Fix it.", fixable=True,
    )  # fmt: skip
    yield LintRecord(repository=Path("repository"), models=(name,), findings=(finding,))
    yield load_record(name)
    packaged = Packaged(target="triton", name=name, version="1", path=Path(name), files=("f",), command="serve")
    yield PackageRecord(packages=(packaged,))
    yield run_record(recipe=name, failures=(name,))
    yield Plan(
        recipe=Recipe(name="tiny", model={"source": name}, steps=[{"stage": "export-onnx"}]),
        out_dir=Path("build"),
        steps=(),
    )
    yield SmokeRecord(replays=(Replay(model=name, version="1", url="http://x", failure="no answer"),))
    yield BuildDiff(old="a", new="b", changes=(Change(step=name, kind="code", text="differs"),), same=(name,))
    difference = Difference(file=name, what="has other content")
    yield Verification(path="out", checked=(name,), differences=(difference,), unchecked=())


KINDS = {kind_of(type(record)) for record in records("m")}


def each(name: str) -> list:
    return [pytest.param(record, id=kind_of(type(record))) for record in records(name)]


def through_rich(record: Document) -> str:
    """Return what `rich.print` writes, with markup and emoji codes on, as they are by default."""
    console = Console(width=500, color_system=None)
    with console.capture() as text:
        console.print(record)
    return text.get()


def test_every_record_that_a_function_returns_is_here() -> None:
    returned = {
        inspect.signature(getattr(optkit, name)).return_annotation
        for name in optkit.__all__
        if inspect.isfunction(getattr(optkit, name)) and name != "open"
    }
    assert all(issubclass(record, Document) for record in returned)
    assert {kind_of(record) for record in returned} == KINDS


@pytest.mark.parametrize("record", each(HOSTILE))
def test_a_name_is_text_everywhere(record: Document) -> None:
    html, rich, text = Content(record._repr_html_()), through_rich(record), str(record)
    assert set(html.tags) <= {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "pre", "span"}
    assert html.attributes <= {"style", "scope"}
    assert not any("url(" in style or "expression" in style for style in html.styles)
    if kind_of(type(record)) != "plan":  # whose names are held to letters and digits
        assert HOSTILE in html.text
        assert HOSTILE in rich
    assert "\N{HUNDRED POINTS SYMBOL}" not in rich + text


@pytest.mark.parametrize("record", each("m.onnx"))
def test_all_three_say_the_same_as_the_command(record: Document) -> None:
    html, rich, text = Content(record._repr_html_()), through_rich(record), str(record)
    for part in shown(record):
        if isinstance(part, str):
            for line in part.splitlines():
                assert line in html.text
                assert line.rstrip() in rich
                assert line in text
        else:
            words = [str(cell) for column in part.columns for cell in (column.header, *column.cells)]
            assert all(word in html.cells for word in words)
            assert all(word in rich for word in words)
    assert html.tags.count("table") == sum(isinstance(part, Table) for part in shown(record))


def test_numbers_stand_right_and_a_head_is_a_head() -> None:
    html = bench({"a": 1.0, "b": 0.5})._repr_html_()
    assert '<th scope="col"' in html
    assert 'text-align:right">0.500</td>' in html
    assert 'text-align:left">b</td>' in html


def test_what_failed_is_said_in_red_and_what_could_not_be_decided_in_yellow() -> None:
    ab = next(records("m"))
    html = ab._repr_html_()
    assert 'color:#dc4040;font-weight:bold">failed: m<' in html
    assert 'color:#a36d00;font-weight:bold">warning: warned of m<' in html
    assert str(ab).endswith("warning: warned of m\n\nfailed: m")
    assert "failed:" not in str(run_record())
    old, new = (
        run_record({"s": 1.0, "other": 1.0, "m": ms}, steps=(step("other"), step("m", sha256=str(ms))))
        for ms in (0.5, 0.9)
    )
    compared = compare(of_run(old, Path("old")), of_run(new, Path("new")), Limits(max_regression=0.05))
    assert compared.failures
    assert compared.failures[0] in str(bench({"s": 1.0, "m": 0.9}, comparison=compared))


def test_a_passport_is_shown_when_its_file_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = passport("m.onnx")
    Path("m.onnx").write_bytes(b"12345")
    assert str(made).startswith("m.onnx (onnx, int8, 5 B)\n  note of m.onnx\n  parity: equal at 3 points")
    Path("m.onnx").unlink()
    assert str(made).startswith("m.onnx (onnx, int8, file missing)")
    assert str(passport("m.onnx", failures=("parity: cosine 0.5",))).startswith("not written\n")


def test_the_calibration_data_is_shown_where_it_was_asked_for() -> None:
    made = passport()
    key = CalibrationKey(method="minmax", percentile=1, sample=1, symmetric=True, model_sha256="", data_sha256="")
    calibration = CalibrationResult(key=key, ranges={}, diagnosis=diagnosis())
    made = made.model_copy(update={"artifact": made.artifact.model_copy(update={"calibration": calibration})})
    assert "growth of the ranges" not in str(made)
    assert "growth of the ranges" in str(made.model_copy(update={"settings": {"doctor": True}}))


@pytest.mark.parametrize("record", each("m.onnx"))
def test_a_record_is_plain_values(record: Document) -> None:
    assert record.to_dict() == json.loads(record.to_json())
    assert record.to_dict()["schema"] == type(record).schema_id


def test_ipython_shows_it_in_a_terminal() -> None:
    written: list[str] = []
    printer = type("Printer", (), {"text": staticmethod(written.append)})
    record = bench({"a": 1.0})
    record._repr_pretty_(printer, False)
    assert written == [str(record)]


@pytest.mark.parametrize(("encoding", "line"), [("ascii", "-----"), ("utf-8", "─────")])
def test_print_writes_what_standard_output_can_encode(encoding: str, line: str) -> None:
    code = "import optkit\nfrom tests.support.runs import bench\noptkit.Passport\nprint(bench({'a': 1.0}))"
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, env=environment, check=True)
    assert line in found.stdout.decode(encoding)


def test_without_the_front_door_a_record_is_what_pydantic_prints() -> None:
    code = (
        "from optkit.serving.smoke import SmokeRecord\nfrom rich.console import Console\n"
        "record = SmokeRecord(replays=(), notes=('[bold]x',))\nprint(record, record._repr_html_())\nConsole(width=200).print(record)\n"
        "import optkit\noptkit.OptkitError\nprint(record)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout.splitlines() == [
        "replays=() notes=('[bold]x',) None",
        "SmokeRecord(replays=(), notes=('[bold]x',))",
        "[bold]x",
        "0 tested, 0 failed",
    ]
