"""`optkit verify` names every difference; `optkit diff` says what changed between two builds."""

import json
import shutil
import zipfile
from pathlib import Path

import onnx
import pytest

import optkit
from optkit.errors import ArtifactError
from optkit.pipeline.verify import verify
from tests.support.project import (
    DYNAMIC,
    ONNX,
    TORCHSCRIPT,
    CommandLine,
    carry_out,
    command_line,
    edit,
    forget_modules,
    write_project,
)
from tests.support.seal import sealed

SERVE = [{"target": "triton", "artifact": "export-onnx"}, {"target": "torchserve", "artifact": "export-onnx"}]
STEPS = [TORCHSCRIPT, ONNX, DYNAMIC]


@pytest.fixture
def optkit_cli(monkeypatch, capsys):
    yield from command_line(monkeypatch, capsys)


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("verify") / "project"
    carry_out(write_project(folder, steps=STEPS, serve=SERVE))
    return folder


@pytest.fixture
def project(ran: Path, tmp_path: Path) -> Path:
    shutil.copytree(ran, tmp_path / "project")
    return tmp_path / "project"


def found(path: Path) -> dict[str, str]:
    differences: dict[str, str] = {}
    for difference in verify(path).differences:
        differences[difference.file] = f"{differences.get(difference.file, '')}\n{difference.what}"
    return differences


PLACES = {
    "run": "out",
    "artifact": "out/export-onnx/model.onnx",
    "source": "out/source/model.source.json",
    "repository": "out/model_repository",
    "model": "out/model_repository/tiny",
    "archive": "out/model_store/tiny.mar",
    "model store": "out/model_store",
}


@pytest.mark.parametrize("place", PLACES)
def test_what_nobody_changed_agrees(ran: Path, place: str) -> None:
    record = verify(ran / PLACES[place])
    assert record.differences == ()
    assert record.checked


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def retype(path: Path) -> None:
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    onnx.save(model, path)


def reseal(path: Path, old: str, new: str) -> None:
    """Edit a record as somebody does who computes its hash again."""
    text = path.read_text()
    assert old in text
    path.write_text(json.dumps(sealed(json.loads(text.replace(old, new)))))


def other_member(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["model-config.yaml"] = b"batchSize: 2\n"
    members["more.py"] = b""
    del members["contract.json"]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


STEP = "export-onnx/model.onnx"
CHANGES = [
    ("out", STEP, append, {STEP: "has the SHA-256"}),
    ("out", STEP, Path.unlink, {STEP: "cannot be read"}),
    (f"out/{STEP}", "", append, {"model.onnx": "has the SHA-256"}),
    (f"out/{STEP}", "", retype, {"model.onnx": "input 'x' is float64[batch,4]; its passport has float32[batch,4]"}),
    ("out", f"{STEP}.passport.json", lambda p: edit(p, '"fp32"', '"int8"'), {f"{STEP}.passport.json": "was changed"}),
    ("out", f"{STEP}.passport.json", Path.unlink, {f"{STEP}.passport.json": "is missing"}),
    ("out", f"{STEP}.passport.json", lambda p: reseal(p, '"fp32"', '"int8"'), {STEP: "computes in fp32; its passport has int8"}),
    (
        "out",
        f"{STEP}.passport.json",
        lambda p: edit(p, "optkit/passport/4", "optkit/passport/3"),
        {f"{STEP}.passport.json": "schema 'optkit/passport/3'; this version of optkit reads 'optkit/passport/4'"},
    ),
    ("out", "bench.json", lambda p: edit(p, '"p50_ms": ', '"p50_ms": 1'), {"bench.json": "was changed after optkit wrote it"}),
    ("out", "run.json", lambda p: edit(p, '"built"', '"reused"'), {"run.json": "was changed after optkit wrote it"}),
    ("out", "../model.py", lambda p: edit(p, "2.0", "3.0"), {"source/model.source.json": "the code or the weights of ../../model.py:build"}),
    ("out", "model_store/tiny.mar", other_member, {"model_store/tiny.mar": "lacks 'contract.json'"}),
    ("out/model_repository", "tiny/1/model.onnx", append, {"tiny/1/model.onnx": "is not the file that optkit wrote"}),
    ("out/model_repository/tiny", "1/model.onnx", Path.unlink, {"1/model.onnx": "is missing"}),
    ("out/model_repository", "tiny/config.pbtxt", append, {"tiny/config.pbtxt": "was edited after optkit wrote it"}),
    ("out/model_repository", "tiny/optkit.json", lambda p: edit(p, '"1/', '"2/'), {"tiny/optkit.json": "was changed"}),
    ("out/model_store", "tiny.mar", other_member, {"tiny.mar": "lacks 'contract.json'"}),
]  # fmt: skip


@pytest.mark.parametrize(("place", "file", "change", "wanted"), CHANGES)
def test_every_change_is_named(project: Path, place: str, file: str, change, wanted: dict[str, str]) -> None:
    path = project / place
    change(path / file if file else path)
    differences = found(path)
    for name, what in wanted.items():
        assert what in differences[name], differences


def test_each_change_of_an_archive_is_named(project: Path) -> None:
    archive = project / "out" / "model_store" / "tiny.mar"
    other_member(archive)
    assert [difference.what for difference in verify(archive).differences] == [
        "'model-config.yaml' is not the file that optkit wrote",
        "has 'more.py', which optkit-archive.json does not name",
        "lacks 'contract.json', which optkit-archive.json names",
    ]


def test_a_run_that_was_moved_without_its_code_says_what_was_not_checked(project: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.move(project / "out", moved)
    record = verify(moved)
    assert record.differences == ()
    assert any("model.py:build, which is not here" in text for text in record.unchecked)


def test_what_has_no_record_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ArtifactError, match="nothing here is a record of optkit; expected a model file"):
            verify(path)
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(ArtifactError, match="has no passport beside it, so nothing says what it should be"):
        verify(tmp_path / "m.onnx")
    (tmp_path / "m.mar").write_bytes(b"")
    with pytest.raises(ArtifactError, match="cannot be read as a TorchServe archive"):
        verify(tmp_path / "m.mar")
    with zipfile.ZipFile(tmp_path / "m.mar", "w") as archive:
        archive.writestr("a", "")
    assert verify(tmp_path / "m.mar").unchecked == ("m.mar: optkit did not make it, so nothing says what it should be",)


def test_the_command_exits_with_0_or_1(project: Path, optkit_cli: CommandLine) -> None:
    done = optkit_cli("verify", project / "out")
    assert (done.code, done.err) == (0, "")
    assert "files checked: everything is as the records say" in done.out
    append(project / "out" / STEP)
    done = optkit_cli("verify", project / "out")
    assert done.code == 1
    assert f"failed: {STEP}: its content has the SHA-256" in done.err.replace("\n", " ")
    assert optkit.verify(project / "out").failures
    assert json.loads(optkit_cli("verify", project / "out", "--json").out)["schema"] == "optkit/verification/1"


def texts(old: Path, new: Path) -> set[str]:
    return {f"{change.step}: {change.kind}: {change.text}" for change in optkit.diff(old, new).changes}


def test_the_same_build_has_no_changes_but_times(project: Path, ran: Path) -> None:
    record = optkit.diff(ran / "out", project / "out")
    assert record.changes == ()
    assert set(record.same) == {"source", "export-torchscript", "export-onnx", "quantize-dynamic"}
    assert optkit.diff(ran / "out" / STEP, project / "out" / STEP).changes == ()


def test_the_difference_of_two_builds_is_said_in_words(
    project: Path, ran: Path, monkeypatch: pytest.MonkeyPatch, optkit_cli: CommandLine
) -> None:
    edit(project / "model.py", "SCALE = 2.0", "SCALE = 3.0")
    write_project(project, steps=[ONNX | {"opset": 18}, DYNAMIC], serve=SERVE, dims={"batch": "1:4:16"})
    forget_modules()
    carry_out(project / "recipe.yaml")
    old, new = ran / "out", project / "out"
    assert {
        "source: code: the code of the model, or its file of weights, is another one",
        "source: settings: batch: 1:4:8 before, 1:4:16 now",
        "export-onnx: settings: opset: 17 before, 18 now",
        "export-torchscript: settings: is no longer a step",
    } <= texts(old, new)
    assert not [text for text in texts(old, new) if "weights: the parameters" in text]
    (changed,) = [text for text in texts(old, new) if text.startswith("export-onnx: file:")]
    assert "before" in changed
    done = optkit_cli("diff", old, new)
    assert done.code == 0
    assert "opset: 17 before, 18 now" in done.out


def test_two_kinds_are_not_compared(ran: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="one is the folder of a run, the other is not"):
        optkit.diff(ran / "out", ran / "out" / STEP)
    with pytest.raises(ArtifactError, match="has no passport beside it"):
        optkit.diff(tmp_path / "a.onnx", tmp_path / "b.onnx")
