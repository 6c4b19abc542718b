"""`optkit compile`: from code to a verified package, what the other commands do with it, and what is refused. Two tests compile."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from optkit.artifact import Artifact, Passport, read_passport
from optkit.stages import CompileAoti
from tests.support.project import CommandLine, carry_out, files_below, statuses, write_project
from tests.support.zoo import Make

INPUTS = ("--input", "x:float32[batch,4]", "--dim", "batch=1:4:8")


@pytest.fixture
def code(tmp_path: Path) -> Path:
    write_project(tmp_path)
    return tmp_path / "model.py"


@pytest.fixture
def package(make: Make, tmp_path: Path) -> Path:
    """A package with its passport, in a folder of its own."""
    made = make("linear", CompileAoti())
    (tmp_path / "made").mkdir()
    path = Path(shutil.copy(made.path, tmp_path / "made" / "model.pt2"))
    Passport(artifact=made.model_copy(update={"path": path})).save()
    return path


def test_it_writes_a_verified_package(optkit: CommandLine, code: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "model.pt2"
    made = optkit("compile", f"{code}:build", "-o", output, *INPUTS)
    assert made.code == 0, made.err
    assert "compiled by AOTInductor of torch" in made.out
    assert "native code: loading it executes it" in made.out
    assert files_below(tmp_path / "out") == {"model.pt2", "model.pt2.passport.json"}
    passport = json.loads(output.with_name("model.pt2.passport.json").read_text())
    assert passport["artifact"]["format"] == "aoti"
    assert passport["artifact"]["compiled"]["dims"]["batch"]["max"] == 8
    assert passport["parity"]["outputs"]
    assert passport["batch_independence"]["failure"] is None

    again = optkit("compile", f"{code}:build", "-o", output, *INPUTS)
    assert again.code == 2
    assert "--force" in again.err


def test_inspect_reads_it_without_loading_it(
    optkit: CommandLine, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda *_, **__: pytest.fail("it was loaded"))
    shown = optkit("inspect", package)
    assert shown.code == 0, shown.err
    for text in (
        "model.pt2: aoti, fp32",
        "code    for cpu",
        "loading it executes it",
        "sizes   batch: only 1 to 16",
        "here    loads",
    ):
        assert text in shown.out
    record = json.loads(optkit("inspect", package, "--json").out)
    assert record["artifact"]["compiled"]["needed"]
    assert record["loads_here"] == ""


def test_doctor_says_whether_it_loads(optkit: CommandLine, package: Path) -> None:
    checked = optkit("doctor", package, "--triton", "25.11")
    assert checked.code == 0, checked.err
    assert "for cpu (x86_64)" in checked.out
    assert "here: loads" in checked.out
    assert "Triton 25.11: not known: Triton must have torch" in checked.out

    passport = read_passport(package)
    assert passport
    assert passport.artifact.compiled
    newer = passport.artifact.compiled.model_copy(update={"torch": "99.1.0"})
    passport.model_copy(update={"artifact": passport.artifact.model_copy(update={"compiled": newer})}).save()
    changed = optkit("doctor", package)
    assert "here: compiled by torch 99." in changed.out


def test_it_is_measured_and_checked_as_every_artifact(optkit: CommandLine, package: Path, make: Make) -> None:
    measured = optkit("bench", package, "--batch", "2", "--time-limit-s", "1", "--json")
    assert measured.code == 0, measured.err
    assert json.loads(measured.out)["measurements"]
    checked = optkit("check", _exported(make), package)
    assert checked.code == 0, checked.err
    refused = optkit("bench", package, "--batch", "32", "--time-limit-s", "1")
    assert refused.code == 2
    assert "32" in refused.err


def _exported(make: Make) -> Path:
    from optkit.stages import ExportProgram

    made: Artifact = make("linear", ExportProgram())
    Passport(artifact=made).save()
    return made.path


def test_servers_do_not_take_it_yet(optkit: CommandLine, package: Path, tmp_path: Path) -> None:
    for target in ("triton", "torchserve"):
        refused = optkit("package", target, package, "-o", tmp_path / "store")
        assert refused.code == 2
        assert "model.pt2: is aoti; expected" in refused.err
    assert not (tmp_path / "store").exists()


def test_a_package_without_a_passport_is_described_and_not_loaded(
    optkit: CommandLine, package: Path, tmp_path: Path
) -> None:
    package.with_name("model.pt2.passport.json").unlink()
    for command in (
        ("inspect", package),
        ("bench", package),
        ("export", "onnx", package, "-o", tmp_path / "m.onnx", *INPUTS),
    ):
        refused = optkit(*command)
        assert refused.code == 2
        assert "native code, which is executed when it is loaded" in refused.err
        assert "It was not loaded." in refused.err
    assert not (tmp_path / "m.onnx").exists()


def test_a_member_that_leads_outside_is_refused(optkit: CommandLine, package: Path) -> None:
    package.with_name("model.pt2.passport.json").unlink()
    with zipfile.ZipFile(package, "a") as archive:
        archive.writestr("model/data/aotinductor/model/../../../../evil.so", b"")
    refused = optkit("inspect", package)
    assert refused.code == 2
    assert "leads out of its folder by '..'" in refused.err


def test_a_package_cut_short_is_refused(optkit: CommandLine, package: Path) -> None:
    package.write_bytes(package.read_bytes()[:-1000])
    refused = optkit("inspect", package)
    assert refused.code == 2
    assert "its SHA-256 differs" in refused.err


REFUSED = {
    "another suffix": (("-o", "model.so"), "model.so: does not end in .pt2"),
    "no time": (("-o", "model.pt2", "--time-limit-s", "0"), "--time-limit-s"),
    "time limit": (
        ("-o", "model.pt2", "--time-limit-s", "0.2"),
        "was not done in 0.2 s, the time limit; nothing was written",
    ),
    "no compiler": (("-o", "model.pt2"), "g++, the C++ compiler, is not on the PATH"),
    "no GPU": (("-o", "model.pt2", "--device", "cuda"), "torch finds no usable GPU here"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_it_cannot_do_is_said_and_nothing_is_written(
    fault: str, optkit: CommandLine, code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    if fault == "no GPU" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    if fault == "no compiler":
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
    options, message = REFUSED[fault]
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    refused = optkit("compile", f"{code}:build", *options, *INPUTS)
    assert refused.code == 2
    assert message in refused.err
    assert not files_below(tmp_path / "out")


def test_a_captured_program_brings_its_inputs(optkit: CommandLine, make: Make, tmp_path: Path) -> None:
    refused = optkit("compile", _exported(make), "-o", tmp_path / "m.pt2", *INPUTS)
    assert refused.code == 2
    assert "--input: applies only to a model source" in refused.err


@pytest.mark.slow
def test_a_recipe_compiles_measures_and_reports_it_and_does_not_make_it_again(
    optkit: CommandLine, tmp_path: Path
) -> None:
    recipe = write_project(
        tmp_path, steps=[{"stage": "export-torchscript"}, {"stage": "compile-aoti"}], choose={"by": "latency"}
    )
    made = optkit("run", recipe, "-o", tmp_path / "out")
    assert made.code == 0, made.err
    assert "compile-aoti" in (tmp_path / "out" / "report.html").read_text()
    assert statuses(carry_out(recipe))["compile-aoti"] == "reused"
