"""Hostile texts through everything that people and CI read: pages, Markdown, JUnit files, annotations, commands and lines to paste."""

import io
import json
import re
import shlex
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt
from rich.console import Console

from optkit.artifact.findings import Knee, NotRun
from optkit.artifact.tensors import DimRange, DType, TensorSpec, dim_option, dimension_faults
from optkit.benchmark.changes import Comparison, Limits, Metric, MetricChange, Trend
from optkit.choose.winner import Winner
from optkit.pipeline.history import HistoryEntry
from optkit.pipeline.plan import Origin
from optkit.pipeline.records import RunRecord
from optkit.pytorch.infer_inputs import InputContract
from optkit.report import html
from optkit.report.cases import Case, Outcome, cases_of_run
from optkit.report.comparison import comparison_markdown
from optkit.report.github import annotations
from optkit.report.html import page
from optkit.report.junit import write_junit
from optkit.report.lint import github_annotations
from optkit.report.markdown import cell, run_markdown
from optkit.report.pictures import bars
from optkit.report.provenance import commands
from optkit.report.quantization import recipe_lines
from optkit.report.showing import as_html, as_rich, as_text
from optkit.report.svg import shorten
from optkit.report.text import next_commands
from optkit.serving.triton.lint import Finding, LintRecord, Severity
from optkit.untrusted.quoting import visible, yaml_text
from tests.support.hostile_texts import CANARY, EVERY, QUOTED, REFUSED, UNUSUAL, shown
from tests.support.runs import bench, calibrated, diagnosis, parity, quantization, run_record, shift, step

every = pytest.mark.parametrize("text", EVERY, ids=shown)
named = pytest.mark.parametrize("text", [text for text in EVERY if text], ids=shown)


def full_run(text: str) -> RunRecord:
    """Return a run in which every text that comes from elsewhere is this one."""
    odd = step(
        text, notes=(text,), parity=parity(), quantization=quantization(text, metric=text), calibration=calibrated(diagnosis(text)),
        shifts=(shift(text),), over_budget=(text,),
    )  # fmt: skip
    numbers = bench({"source": 1.0, text: 0.5}, not_run=(NotRun(artifact=text, reason=text),))
    return run_record(
        recipe=text,
        origin=Origin(recipe=text, overrides={text: text}),
        steps=(odd, step("lost", status="failed", reason=text, parity=None)),
        bench=numbers.model_copy(update={"knees": (Knee(artifact=text, batch=8, samples_per_s=1.0, rule=text),)}),
        contract=numbers.contract.model_copy(update={"inputs": (text,), "dims": {text: DimRange(min=1, opt=2, max=3)}}),
        failures=(text,),
        winner=None,
    )


class Elements(HTMLParser):
    """The elements of a page with the names of their attributes, and its texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.texts: list[str] = []
        self.values: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))
        self.values += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.found.append(("comment", ()))


def page_of(text: str) -> Elements:
    record = full_run(text)
    past = HistoryEntry.of(record).model_copy(update={"created": f"20{text}", "commit": text})
    return Elements(page(record, Path("out") / "run", [past, past]))


@named
def test_a_page_has_the_same_elements_whatever_its_texts_are(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    kinds = (
        "steps",
        "trade_off",
        "distributions",
        "throughput",
        "parts",
        "over_time",
        f"frontier {text}",
        "frontier plain",
    )
    monkeypatch.setattr(
        html, "_pictures", lambda *_: dict.fromkeys(kinds, "<svg></svg>")
    )  # they have a test of their own
    plain, odd = page_of("plain"), page_of(text)
    assert odd.found == plain.found
    assert [tag for tag, _ in odd.found].count("script") == 1
    if text.isprintable():
        assert any(text in found for found in odd.texts)


# A picture takes a while, and only these signs mean something in it.
IN_PICTURES = [text for text in EVERY if set(text) & set("<>&\"'{}$%\\_\x1b\n\x00\u2028\u202e")]


@pytest.mark.parametrize("text", IN_PICTURES, ids=shown)
def test_a_picture_has_the_same_kinds_of_elements_whatever_its_texts_are(text: str) -> None:
    def drawn(name: str) -> Elements:
        return Elements(bars("steps", "seconds", {name: {"seconds": 1.0}, "other": {"seconds": 2.0}}, "s"))

    plain, odd = drawn("plain"), drawn(text)
    assert set(odd.found) == set(plain.found)  # how many ticks there are goes by the width of the labels
    assert f"seconds: {visible(text)} 1 s; other 2 s" in odd.values
    assert "".join(odd.texts).count(shorten(text, 30)) >= 2  # for a screen and for a phone


def markdown_tokens(text: str) -> list[tuple[str, str]]:
    """Return the kinds of elements that a Markdown text becomes."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    flat = [inner for token in tokens for inner in (token, *(token.children or ()))]
    return [
        (token.type, token.tag) for token in flat if token.type not in ("text", "text_special", "softbreak", "inline")
    ]


@named
def test_markdown_has_the_same_elements_whatever_its_texts_are(text: str) -> None:
    plain, odd = run_markdown(full_run("plain")), run_markdown(full_run(text))
    assert markdown_tokens(odd) == markdown_tokens(plain)
    assert odd.count("\n") == plain.count("\n")
    change = MetricChange(
        artifact=text, metric=Metric.SIZE, batch=None, old=1.0, new=2.0, worse_by=1.0, low=None, high=None, verdict=Trend.WORSE,
        failure=text, warning=None,
    )  # fmt: skip
    comparisons = [
        Comparison(
            recipe=name, old=name, new=name, method=name, limits=Limits(),
            changes=(change.model_copy(update={"artifact": name, "failure": name, "warning": name}),), differing=(name,), only_old=(name,),
            only_new=(name,),
        )
        for name in ("plain", text)
    ]  # fmt: skip
    assert markdown_tokens(comparison_markdown(comparisons[1])) == markdown_tokens(comparison_markdown(comparisons[0]))


@every
def test_a_cell_of_markdown_shows_the_text_as_it_is(text: str) -> None:
    shown = MarkdownIt("commonmark").enable("strikethrough").parse(f"a {cell(text)}")
    words = "".join(child.content for token in shown for child in token.children or ())
    assert words.replace("\u200b", "").removeprefix("a").strip() == visible(" ".join(text.split()))
    for sign, name in re.findall(r"(.)(\w)", words):
        assert sign != "@"
        assert sign != "#" or name.isalpha() or name == "_"


def test_a_mention_and_the_number_of_an_issue_are_none() -> None:
    """GitHub looks for them where no escape is left."""
    assert cell("@all #1") == "@&#8203;all \\#&#8203;1"


@named
def test_a_junit_file_has_the_same_elements_whatever_its_texts_are(tmp_path: Path, text: str) -> None:
    found = []
    for name in ("plain", text):
        write_junit(tmp_path / "junit.xml", name, cases_of_run(full_run(name)))
        found.append(ET.parse(tmp_path / "junit.xml").getroot())
    plain, odd = found
    assert [element.tag for element in odd.iter()] == [element.tag for element in plain.iter()]
    assert [sorted(element.attrib) for element in odd.iter()] == [sorted(element.attrib) for element in plain.iter()]
    if text.isprintable():
        assert odd[0].attrib["name"] == text
        assert text in {element.attrib.get("classname") for element in odd.iter("testcase")}


def undone(text: str) -> str:
    """Return what GitHub's runner makes of the text of a command."""
    for escape, sign in (("%3A", ":"), ("%2C", ","), ("%0A", "\n"), ("%0D", "\r"), ("%25", "%")):
        text = text.replace(escape, sign)
    return text


@every
def test_an_annotation_is_one_command_whatever_its_texts_are(text: str) -> None:
    finding = Finding(
        rule="T101",
        severity=Severity.ERROR,
        model="m",
        file="m/config.pbtxt",
        line=1,
        message=text,
        advice="",
        fixable=False,
    )
    record = LintRecord(repository=Path("repository"), models=("m",), findings=(finding,), fixed=())
    lines = annotations([Case(text, text, Outcome.FAILED, text)], text or None)
    for line in (*lines, github_annotations(record)):
        assert line.isprintable()
        found = re.fullmatch(r"::error (file=([^:,]*),)?(line=1,)?title=([^:,]*)::(.*)", line)
        assert found is not None
    said = undone(lines[0].partition("::")[2].partition("::")[2])
    assert said.replace("\n", "\\n") == visible(text)


@every
def test_a_line_of_yaml_is_read_back(text: str) -> None:
    line = yaml_text(text)
    assert line.isprintable()
    assert yaml.safe_load(f"{line}: 1\nexclude:\n  - {line}\n") == {text: 1, "exclude": [text]}
    lines = recipe_lines(quantization(text))
    assert yaml.safe_load("\n".join(lines)) == {"exclude": [text]}
    spec = TensorSpec.model_construct(name=text, dtype=DType.FLOAT32, shape=("batch", 4))
    contract = InputContract.model_construct(inputs=(spec,), dims={text: DimRange(min=1, opt=2, max=3)})
    found = yaml.safe_load(contract.as_recipe())
    assert found == {"inputs": {text: "float32[batch, 4]"}, "dims": {text: {"min": 1, "opt": 2, "max": 3}}}


@named
def test_a_command_to_paste_has_the_words_that_it_should_have(text: str) -> None:
    assert shlex.split(dim_option(text)) == ["--dim", f"{text}=1:8:64"]
    spec = TensorSpec.model_construct(name="x", dtype=DType.FLOAT32, shape=(text,))
    if text.isprintable():
        fault = dimension_faults([spec], {})[0]
        advice = fault.partition("declare it, with ")[2].rpartition(", or as ")
        assert shlex.split(advice[0]) == ["--dim", f"{text}=1:8:64"]
        assert yaml.safe_load(advice[2].removesuffix(" in a recipe")) == {text: {"min": 1, "opt": 8, "max": 64}}
    record = run_record(steps=(step(text), step("quantize-static")), origin=Origin(recipe=text, overrides={text: text}))
    made = dict(commands(record, Path(text), 8))[text]
    words = shlex.split(made)
    assert words[:8] == ["optkit", "run", text, "-o", str(Path(text)), "--set", f"{text}={text}", "--step"]
    assert words[8:] == [text, "optkit", "bench", str(Path(text) / text / "model.onnx"), "--batch", "8"]
    won = run_record(steps=(step("onnx"), step(text)), winner=Winner(artifact=text, reason=""))
    words = [shlex.split(line.removeprefix("next: ")) for line in next_commands(won, Path("out"))]
    best = str(Path("out") / text / "model.onnx")
    assert words == [["optkit", "inspect", best], ["optkit", "bench", str(Path("out/onnx/model.onnx")), best]]


def test_json_holds_every_text(tmp_path: Path) -> None:
    for text in (*UNUSUAL, *QUOTED, *REFUSED[1:]):
        record = full_run(text)
        assert record.to_json().isascii()
        assert json.loads(record.to_json())["recipe"] == text
        record.write(tmp_path / "run.json")
        assert RunRecord.read(tmp_path / "run.json").failures == (text,)
    assert not list(tmp_path.rglob(f"*{CANARY}*"))


@named
def test_a_record_that_shows_itself_shows_texts_as_text(text: str) -> None:
    """By print(), in a notebook, and on a console of somebody else's, which takes markup."""
    plain, odd = full_run("plain"), full_run(text)
    assert as_text(odd).replace("\n", "").isprintable()
    elements = Elements(as_html(odd))
    assert elements.found == Elements(as_html(plain)).found
    assert "".join(elements.texts).replace("\n", "").isprintable()
    if text.isprintable():
        assert any(text in found for found in elements.texts)
    assert drawn(odd).replace("\n", "").isprintable()


def drawn(record: RunRecord) -> str:
    stream = io.StringIO()
    Console(file=stream, width=200).print(as_rich(record))
    return stream.getvalue()


@pytest.mark.parametrize("text", ["[red]x[/red]", "[/]", "[b]"])
def test_a_console_that_takes_markup_takes_none_from_a_record(text: str) -> None:
    assert drawn(full_run(text)).count(text) == drawn(full_run("pl4in")).count("pl4in")
