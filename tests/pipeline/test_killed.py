"""A run that is killed, at whatever moment, is taken up by the next one."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from optkit.pipeline.records import RunRecord
from tests.support.project import DYNAMIC, ONNX, TORCHSCRIPT, edit, files_below, write_project

SERVE = [{"target": "triton", "artifact": "export-onnx"}, {"target": "torchserve", "artifact": "export-torchscript"}]


def start(recipe: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "optkit", "run", str(recipe), "-o", str(recipe.parent / "out"), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], seen: Callable[[], bool]) -> bool:
    """Wait until something is seen, or the process has ended without it."""
    while process.poll() is None:
        if seen():
            return True
        time.sleep(0.0005)
    return False


def test_a_run_killed_at_every_step_completes(tmp_path: Path) -> None:
    recipe = write_project(tmp_path, steps=[TORCHSCRIPT, ONNX, DYNAMIC], serve=SERVE)
    out = tmp_path / "out"
    moments = [
        "source", ".export-torchscript.partial", "export-torchscript", ".export-onnx.partial", "export-onnx",
        ".quantize-dynamic.partial", "quantize-dynamic", "bench.json", "model_repository",
    ]  # fmt: skip
    for moment in moments:
        process = start(recipe)
        assert wait_for(process, (out / moment).exists), f"{moment}: {process.communicate()}"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    last = start(recipe)
    _, err = last.communicate()
    assert last.returncode == 0, err
    record = RunRecord.read(out / "run.json")
    assert [step.status for step in record.steps] == ["reused"] * 3
    assert len(record.packaged) == 2
    assert [path for path in files_below(out) if ".partial" in path or ".optkit-" in path] == []

    archive = out / "model_store" / "tiny.mar"
    before = archive.read_bytes()
    again = start(recipe, "--fresh")
    again.communicate()
    assert again.returncode == 0
    assert {step.status for step in RunRecord.read(out / "run.json").steps} == {"built"}
    assert archive.read_bytes() == before


@pytest.mark.parametrize("sent", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM], [signal.SIGHUP]])
def test_what_ends_a_run_ends_it_with_130_and_nothing_half_made(tmp_path: Path, sent: list[signal.Signals]) -> None:
    """Ctrl-C, `timeout` with its two signals, and a terminal that was closed."""
    recipe = write_project(tmp_path, steps=[TORCHSCRIPT | {"method": "trace"}])
    edit(tmp_path / "model.py", "def forward(self, x):", "def forward(self, x):\n        wait()")
    (tmp_path / "model.py").write_text(
        (tmp_path / "model.py").read_text()
        + "\n\ndef wait():\n    import pathlib, time\n"
        + "    if pathlib.Path(__file__).with_name('out').joinpath('.export-torchscript.partial').exists():\n"
        + "        time.sleep(60)\n"
    )
    process = start(recipe)
    assert wait_for(process, (tmp_path / "out" / ".export-torchscript.partial").exists)
    time.sleep(0.3)
    for number in sent:
        process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "export-torchscript" not in {
        path.split("/")[0].strip(".").removesuffix(".partial") for path in files_below(tmp_path / "out")
    }
