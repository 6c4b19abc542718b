"""What CI reads: JUnit files against their schema, annotations against GitHub's rules, Markdown, JSON against its schema."""

import json
import re
from pathlib import Path

import jsonschema
import junitparser
import pytest
import xmlschema

from optkit.artifact.findings import NotRun
from optkit.benchmark.changes import Comparison, Limits
from optkit.errors import OutputError
from optkit.pipeline.baseline import of_run
from optkit.pipeline.compare import compare
from optkit.pipeline.history import HistoryEntry
from optkit.pipeline.records import RunRecord
from optkit.report.cases import Case, Outcome, cases_of_comparison, cases_of_run
from optkit.report.comparison import comparison_markdown
from optkit.report.github import add_summary, annotations
from optkit.report.junit import write_junit
from optkit.report.markdown import run_markdown
from tests.support.runs import bench, parity, run_record, step

HOSTILE = "a\n::error::owned\x1b[31m | <b>x</b> @all `c` %25 , : ünï"

# What Jenkins and GitLab ask of a JUnit file, as their documents say: the order of the children, and which attributes must be there.
JUNIT_XSD = """<?xml version="1.0"?>
<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
  <xs:element name="testsuites"><xs:complexType><xs:sequence>
    <xs:element name="testsuite" maxOccurs="unbounded"><xs:complexType><xs:sequence>
      <xs:element name="testcase" minOccurs="0" maxOccurs="unbounded"><xs:complexType>
        <xs:choice minOccurs="0">
          <xs:element name="skipped"><xs:complexType><xs:attribute name="message" type="xs:string"/></xs:complexType></xs:element>
          <xs:element name="failure"><xs:complexType><xs:simpleContent><xs:extension base="xs:string">
            <xs:attribute name="message" type="xs:string"/><xs:attribute name="type" type="xs:string"/>
          </xs:extension></xs:simpleContent></xs:complexType></xs:element>
        </xs:choice>
        <xs:attribute name="classname" type="xs:string" use="required"/>
        <xs:attribute name="name" type="xs:string" use="required"/>
        <xs:attribute name="time" type="xs:decimal"/>
      </xs:complexType></xs:element>
    </xs:sequence>
      <xs:attribute name="name" type="xs:string" use="required"/>
      <xs:attribute name="tests" type="xs:nonNegativeInteger" use="required"/>
      <xs:attribute name="failures" type="xs:nonNegativeInteger" use="required"/>
      <xs:attribute name="errors" type="xs:nonNegativeInteger" use="required"/>
      <xs:attribute name="skipped" type="xs:nonNegativeInteger"/>
      <xs:attribute name="time" type="xs:decimal"/>
    </xs:complexType></xs:element>
  </xs:sequence></xs:complexType></xs:element>
</xs:schema>"""


def failed_run() -> RunRecord:
    return run_record(
        steps=(
            step("export-onnx", parity=parity(passed=False), failures=("parity: cosine 0.5",)),
            step("engine", status="skipped", reason="tensorrt is not installed"),
            step("big", over_budget=("size: 12 MB; at most 10 MB is allowed",)),
            step(HOSTILE, status="failed", reason=HOSTILE),
        ),
        bench=bench({"source": 1.0}, not_run=(NotRun(artifact="export-onnx", reason="needs a GPU"),)),
        failures=("export-onnx: parity: cosine 0.5", f"{HOSTILE}: {HOSTILE}", "serve.0 (triton): not packaged"),
        winner=None,
    )


def slower() -> Comparison:
    before = {"source": 1.0, "export-onnx": 0.5, "quantize-static": 0.25}
    steps = (step("export-onnx"), step("quantize-static", sha256="other"))
    now = run_record(before | {"quantize-static": 0.5}, steps=steps)
    old = of_run(run_record(before), Path("old.json"))
    return compare(old, of_run(now, Path("new.json")), Limits(max_regression=0.05))


def test_a_junit_file_holds_its_schema_and_counts_right(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    write_junit(path, HOSTILE, cases_of_run(failed_run()))
    xmlschema.XMLSchema(JUNIT_XSD).validate(str(path))
    suite = next(iter(junitparser.JUnitXml.fromfile(str(path))))
    assert (suite.tests, suite.failures, suite.skipped, suite.errors) == (len(list(suite)), 3, 3, 0)
    results = {(case.classname, case.name): [type(r).__name__ for r in case.result] for case in suite}
    assert results["export-onnx", "parity"] == ["Failure"]
    assert results["export-onnx", "make"] == []
    assert results["engine", "make"] == ["Skipped"]
    assert results["export-onnx", "benchmark"] == ["Skipped"]
    assert results["big", "budget"] == ["Skipped"]
    assert results["tiny", "run"] == ["Failure"]
    assert "\x1b" not in path.read_text()


def test_what_could_not_be_proven_here_is_skipped_not_passed() -> None:
    """The independence in the passport of such an engine is that of the model that it was built from."""
    engine = step("engine", unproven="no NVIDIA driver here", parity=None, accuracy=None)
    found = [case for case in cases_of_run(run_record(steps=(engine,))) if case.artifact == "engine"]
    assert [(case.check, case.outcome, case.message) for case in found] == [
        ("make", Outcome.PASSED, ""),
        ("parity", Outcome.SKIPPED, "no NVIDIA driver here"),
    ]


def test_the_schema_of_junit_refuses_what_it_should(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    write_junit(path, "suite", [Case("a", "b", Outcome.PASSED)])
    path.write_text(path.read_text().replace('classname="a" ', ""))
    with pytest.raises(xmlschema.XMLSchemaValidationError, match="classname"):
        xmlschema.XMLSchema(JUNIT_XSD).validate(str(path))


def test_a_regression_is_a_failed_case_that_names_the_variant(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    write_junit(path, "suite", cases_of_comparison(slower()))
    failed = [
        (case.classname, case.name)
        for suite in junitparser.JUnitXml.fromfile(str(path))
        for case in suite
        if case.result
    ]
    assert ("quantize-static", "latency against the baseline, batch 8") in failed
    assert {artifact for artifact, _ in failed} == {"quantize-static"}


def test_annotations_follow_githubs_rules() -> None:
    """One line each; the text can neither end its line nor start a command of its own; a property holds no colon and no comma."""
    lines = annotations(cases_of_run(failed_run()), "recipes/a:b,c.yaml")
    assert all(line.startswith(("::error ", "::warning ")) for line in lines)
    assert not any("\n" in line or "\r" in line for line in lines)
    for line in lines:
        command = re.fullmatch(r"::(error|warning) file=([^:,]*),title=([^:,]*)::(.*)", line)
        assert command is not None
        assert command[2] == "recipes/a%3Ab%2Cc.yaml"
    hostile = next(line for line in lines if "owned" in line)
    assert "a%0A::error::owned" in hostile
    assert "%2525" in hostile


def test_the_summary_is_added_to_githubs_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    with pytest.raises(OutputError, match="GITHUB_STEP_SUMMARY is not set; expected a job of GitHub Actions"):
        add_summary("x")
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    add_summary("# after")
    assert path.read_text() == "before\n# after\n"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    with pytest.raises(OutputError, match="cannot be written"):
        add_summary("x")


def test_markdown_tells_a_run_and_no_name_breaks_its_table() -> None:
    text = run_markdown(failed_run())
    assert "### ❌ tiny" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count(" | ") for line in rows if "---" not in line}) == 1
    assert "<b>" not in text
    assert "@all" not in text
    assert "- engine: skipped: tensorrt is not installed" in text
    good = run_markdown(run_record())
    assert "### ✅ tiny" in good
    assert "| **quantize-static** | fp32 | 1.0 MB | ✓ equal | 0.9500 | 0.707 |" in good


def test_markdown_tells_a_comparison() -> None:
    text = comparison_markdown(slower())
    assert "### ❌ tiny against the baseline" in text
    assert re.search(
        r"\| quantize-static \| latency @8 \| 0\.707 ms \| 1\.414 ms \| \+100\.0% \| .* \| ❌ worse, failed \|", text
    )
    assert "- quantize-static: latency at batch 1: worse by +100.0%" in text


@pytest.mark.parametrize(
    "document", [run_record(), failed_run(), bench({"a": 1.0}), slower(), HistoryEntry.of(run_record())]
)
def test_what_is_written_holds_its_schema(document: RunRecord) -> None:
    schema = type(document).json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    content = json.loads(document.to_json())
    jsonschema.validate(content, schema)
    with pytest.raises(jsonschema.ValidationError, match="was expected"):
        jsonschema.validate(content | {"schema": "optkit/run/0"}, schema)
    with pytest.raises(jsonschema.ValidationError, match="unexpected"):
        jsonschema.validate(content | {"more": 1}, schema)
