"""`optkit quantize-torch`: from code to a packaged INT8 TorchScript, and what it refuses."""

import json
from pathlib import Path

import pytest

from tests.support.project import CommandLine, write_project

INPUTS = ("--input", "x:float32[batch,4]", "--dim", "batch=1:4:8")


@pytest.fixture
def code(tmp_path: Path) -> Path:
    write_project(tmp_path)
    return tmp_path / "model.py"


def test_it_writes_a_proven_file_that_can_be_measured_and_packaged(
    optkit: CommandLine, code: Path, tmp_path: Path
) -> None:
    output = tmp_path / "int8.pt"
    made = optkit("quantize-torch", f"{code}:build", "-o", output, *INPUTS, "--calibration", f"{code}:calibration")
    assert made.code == 0, made.err
    assert "in INT8: 1 Linear" in made.out
    passport = json.loads(output.with_name("int8.pt.passport.json").read_text())
    assert passport["settings"]["mode"] == "static"
    assert passport["artifact"]["precision"] == "int8"
    assert passport["parity"]["tolerance"]["min_cosine"] == 0.98
    assert passport["batch_independence"]["failure"] is None

    assert optkit("bench", output, "--batch", "2", "--time-limit-s", "1").code == 0
    assert optkit("package", "torchserve", output, "-o", tmp_path / "store").code == 0
    assert optkit("package", "triton", output, "-o", tmp_path / "repository").code == 0


def test_the_proof_takes_real_samples_in_dynamic_mode_too(optkit: CommandLine, code: Path, tmp_path: Path) -> None:
    arguments = ("-o", tmp_path / "d.pt", *INPUTS, "--data", f"{code}:calibration", "--json")
    made = optkit("quantize-torch", f"{code}:build", *arguments)
    assert made.code == 0, made.err
    assert json.loads(made.out)["parity"]["values"] == "real samples"


def test_without_calibration_it_is_dynamic(optkit: CommandLine, code: Path, tmp_path: Path) -> None:
    made = optkit("quantize-torch", f"{code}:build", "-o", tmp_path / "d.pt", *INPUTS, "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["settings"]["mode"] == "dynamic"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--mode", "dynamic", "--calibration", "{code}:calibration"), "--calibration: applies only to --mode static"),
        (("--mode", "static"), "quantize-torch: no calibration data"),
        (("--mode", "fast"), "'fast' is not one of 'auto', 'dynamic', 'static'"),
        (("--backend", "cuda"), "'cuda' is not one of 'auto', 'x86', 'fbgemm', 'onednn', 'qnnpack'"),
        (("--max-drop", "0.1"), "--max-drop 0.1: nothing measures accuracy"),
        (("--calibration", "{code}:nothing"), "has no 'nothing'"),
    ],
)
def test_what_it_cannot_do_is_told_and_nothing_is_written(
    arguments: tuple[str, ...], says: str, optkit: CommandLine, code: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out" / "int8.pt"
    given = [argument.format(code=code) for argument in arguments]
    done = optkit("quantize-torch", f"{code}:build", "-o", output, *INPUTS, *given)
    assert done.code == 2
    assert says in done.err
    assert not output.parent.exists() or not list(output.parent.iterdir())


def test_an_existing_file_is_kept(optkit: CommandLine, code: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.pt").write_text("mine")
    done = optkit("quantize-torch", f"{code}:build", "-o", tmp_path / "mine.pt", *INPUTS)
    assert done.code == 2
    assert "exists already. Give --force to replace it" in done.err
    assert (tmp_path / "mine.pt").read_text() == "mine"
