"""Hostile texts on a terminal and in the log of a workflow: shown as text, without markup, control sequences or commands; commands to paste."""

import io
import re
import shlex
import subprocess
from pathlib import Path

import onnx as library
import pytest
from onnx import TensorProto, helper
from rich.console import RenderableType

from optkit.artifact import Artifact, Passport
from optkit.artifact.calibration import CalibrationKey, CalibrationResult
from optkit.artifact.findings import NotRun
from optkit.artifact.tensors import DimRange
from optkit.benchmark.changes import Comparison, Limits, Metric, MetricChange, Trend
from optkit.cli.output import _bars
from optkit.pipeline.records import RunRecord
from optkit.report.calibration import calibration_tables
from optkit.report.comparison import comparison_shown
from optkit.report.lint import lint_text
from optkit.report.measured import bench_notes, bench_tables
from optkit.report.quantization import quantization_parts
from optkit.report.table import parity_table, plain_table, run_tables
from optkit.report.text import passport_text, run_summary
from optkit.serving.triton.lint import Finding, LintRecord, Severity
from optkit.untrusted.console import PlainConsole
from optkit.untrusted.quoting import visible
from tests.support.hostile_texts import CANARY, EVERY, QUOTED, REFUSED, shown
from tests.support.project import CommandLine, files_below
from tests.support.runs import bench, diagnosis, parity, quantization, run_record, shift, step

named = pytest.mark.parametrize("text", [text for text in EVERY if text], ids=shown)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_of(text: str) -> RunRecord:
    odd = step(text, notes=(text,), parity=parity(), over_budget=(text,))
    return run_record(
        recipe=text,
        steps=(odd, step("lost", status="failed", reason=text, parity=None)),
        bench=bench({"source": 1.0, text: 0.5}, not_run=(NotRun(artifact=text, reason=text),)),
        winner=None,
    )


def passport_of(text: str) -> Passport:
    key = CalibrationKey(method="minmax", percentile=99.9, sample=1, symmetric=True, model_sha256="", data_sha256="")
    calibration = CalibrationResult(key=key, ranges={text: (0.0, 1.0)}, diagnosis=diagnosis(text))
    artifact = Artifact(
        path=Path(__file__), format="onnx", precision="fp32", inputs=(), outputs=(), dims={}, sha256="", notes=(text,),
        calibration=calibration,
    )  # fmt: skip
    return Passport(artifact=artifact, unproven=text, shifts=(shift(text),))


def everything(text: str) -> list[RenderableType]:
    """Return every kind of answer, with this text wherever one comes from elsewhere."""
    record = run_of(text)
    assert record.bench is not None
    change = MetricChange(
        artifact=text,
        metric=Metric.SIZE,
        old=1.0,
        new=2.0,
        worse_by=1.0,
        verdict=Trend.WORSE,
        failure=text,
        warning=text,
    )
    comparison = Comparison(
        recipe=text,
        old=text,
        new=text,
        method=text,
        limits=Limits(),
        changes=(change,),
        differing=(text,),
        only_old=(text,),
        only_new=(text,),
    )
    finding = Finding(
        rule="T101", severity=Severity.ERROR, model="m", file=text, line=1, message=text, advice=text, fixable=False
    )
    odd = parity().model_copy(update={"reference": text, "candidate": text})
    passport = passport_of(text)
    return [
        *run_tables(record), run_summary(record, Path("out")), *bench_tables(record.bench), *bench_notes(record.bench), parity_table(odd),
        *comparison_shown(comparison), *quantization_parts(quantization(text)), *calibration_tables(passport),
        passport_text(passport, Path("m.onnx")),
        lint_text(LintRecord(repository=Path("r"), models=("m",), findings=(finding,), fixed=(finding,))),
    ]  # fmt: skip


def printed(*items: RenderableType) -> str:
    stream = io.StringIO()
    console = PlainConsole(stream)
    console.width = 200
    for item in items:
        console.print(item, soft_wrap=isinstance(item, str))
    return stream.getvalue()


@named
def test_every_answer_shows_a_text_as_text(text: str) -> None:
    for item in everything(text):
        assert printed(item).replace("\n", "").isprintable()
    whole = " ".join(printed(*everything(text)).split())
    expected = [part for line in text.split("\n") for part in visible(line.translate(DROPPED)).split()]
    assert all(part in whole for part in expected if len(part) < 60)


# What rich leaves out of a text by itself, and tabs, which it makes blanks of.
DROPPED = dict.fromkeys(map(ord, "\a\b\v\f\r")) | {ord("\t"): " "}


@named
def test_a_title_and_a_progress_bar_take_no_markup(text: str) -> None:
    bars = _bars(PlainConsole(io.StringIO()))
    number = bars.add_task(text, done=0, of="", left="")
    drawn = bars.columns[1](bars.tasks[number])
    assert str(drawn) == text.translate(dict.fromkeys(map(ord, "\a\b\v\f\r")))
    assert printed(drawn).replace("\n", "").isprintable()
    title = " ".join(printed(plain_table(text, "c" * 150)).split()).partition(" ccc")[0]  # as wide as the table
    assert title.startswith(visible(text.split("\n")[0].translate(DROPPED).split()[0])[:60])


@named
def test_no_answer_is_a_command_of_a_workflow(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    for line in printed(*everything(text)).splitlines():
        assert not line.lstrip().startswith("::")
        assert "##[" not in line


def write_onnx(path: Path, dim: str, node: str = "node", producer: str = "") -> Path:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [dim, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name=node)], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name=producer)
    library.save(model, str(path))
    return path


@pytest.mark.parametrize("text", QUOTED, ids=shown)
def test_the_options_that_an_error_tells_can_be_pasted(optkit: CommandLine, folder: Path, text: str) -> None:
    """The name of a dimension comes from the file; a shell must not run what is in it."""
    path = write_onnx(folder / "m.onnx", text)
    found = optkit("package", "triton", path, "-o", "models")
    assert found.code == 2
    added = found.err.partition("Add ")[2].rpartition(" with your own numbers.")[0]
    assert shlex.split(added) == ["--dim", f"{text}=1:8:64"]
    given = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {added}"], capture_output=True, text=True, check=True, cwd=folder
    )
    assert given.stdout == f"--dim\n{text}=1:8:64\n"
    assert not (folder / CANARY).exists()
    done = optkit("package", "triton", path, "-o", "models", *shlex.split(added.replace("1:8:64", "1:2:4")), "-q")
    assert done.code == 0, done.err
    assert not (folder / CANARY).exists()


@pytest.mark.parametrize("text", [text for text in REFUSED if text], ids=shown)
def test_a_file_with_a_name_that_cannot_be_printed_is_refused_in_words(
    optkit: CommandLine, folder: Path, text: str
) -> None:
    path = write_onnx(folder / "m.onnx", text)
    before = files_below(folder)
    for command in (("inspect", path), ("package", "triton", path, "-o", "models"), ("quantize", path, "-o", "q.onnx")):
        found = optkit(*command)
        assert found.code == 2, found
        assert found.out == ""
        assert re.match(r"error: \S*m\.onnx: tensor 'x': shape: dimension: the name .*; expected", found.err)
        assert "Traceback" not in found.err
        assert found.err.replace("\n", "").isprintable()
    assert files_below(folder) == before
    for option in ("--dim", "--output-name"):
        value = f"{text}=1:2:3" if option == "--dim" else text
        (folder / "model.py").write_text("import torch\ndef build(): return torch.nn.Linear(4, 3)\n")
        found = optkit(
            "export", "torchscript", "model.py:build", "-o", "m.pt", "--input", "x:float32[1,4]", option, value
        )
        assert found.code == 2, found
        assert "the name" in found.err
        assert found.err.replace("\n", "").isprintable()


def test_what_else_a_file_says_is_shown_as_text(optkit: CommandLine, folder: Path) -> None:
    """Producers and nodes are held to nothing; they are shown, and never more."""
    path = write_onnx(folder / "m.onnx", "batch", node="\x1b[31m", producer="\x1b]0;title\x07\n::error::owned [red]")
    found = optkit("inspect", path)
    assert found.code == 0
    assert "by \\x1b]0;title" in found.out
    assert "[red]" in found.out
    assert found.out.replace("\n", "").isprintable()
    assert optkit("inspect", path, "--json").out.isascii()


def test_a_file_may_be_called_anything_in_the_commands_that_come_next(optkit: CommandLine, folder: Path) -> None:
    (folder / "model.py").write_text("import torch\ndef build(): return torch.nn.Linear(4, 3)\n")
    name = f"$(touch {CANARY}) [red]'.pt"
    found = optkit("export", "torchscript", "model.py:build", "-o", name, "--input", "input:float32[1,4]")
    assert found.code == 0, found.err
    hints = [shlex.split(line.removeprefix("next: ")) for line in found.err.splitlines() if line.startswith("next: ")]
    assert hints == [["optkit", "bench", name], ["optkit", "package", "torchserve", name, "-o", "model_store"]]
    assert name in found.out
    assert not (folder / CANARY).exists()


def test_a_dimension_whose_name_holds_an_equals_sign_can_be_given() -> None:
    from optkit.cli.values import parse_dims

    assert parse_dims(["a=b=1:2:3"]) == {"a=b": DimRange(min=1, opt=2, max=3)}
