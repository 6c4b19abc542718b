"""A passport may come from anywhere: the interpreter that it names is started only if the user has named it too."""

from pathlib import Path

import pytest

from optkit.api.inspect import doctor, inspect
from optkit.artifact import Passport
from optkit.errors import RunnerError
from optkit.runners import Device, open_runner
from optkit.tensorrt import installed
from tests.serving.triton.test_plan import plan


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that leaves a trace when it is started."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'started'}\nexit 1\n")
    program.chmod(0o755)
    return program


@pytest.fixture(autouse=True)
def _ask_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    installed.forget()
    monkeypatch.setattr(installed, "_named", set())


def test_what_only_a_passport_names_is_not_started(program: Path, tmp_path: Path) -> None:
    engine = plan(tmp_path, python=str(program))
    Passport(artifact=engine).save()
    says = f"its passport says that it needs the TensorRT of {program}"
    assert says in (inspect(engine.path).loads_here or "")
    assert says in (doctor([engine.path]).engines[0].here or "")
    with pytest.raises(RunnerError, match=r"If you know this interpreter, set OPTKIT_TENSORRT_PYTHON="):
        open_runner(engine, Device.CUDA).__enter__()
    assert not (tmp_path / "started").exists()


def test_what_the_user_names_is_started(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = plan(tmp_path, python=str(program))
    Passport(artifact=engine).save()
    monkeypatch.setenv(installed.ENVIRONMENT, str(program))
    with pytest.raises(RunnerError):
        inspect(engine.path)
    assert (tmp_path / "started").exists()
