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
        "source", ".export-torchscript.optkit-*", "export-torchscript", ".export-onnx.optkit-*", "export-onnx",
        ".quantize-dynamic.optkit-*", "quantize-dynamic", "bench.json", "model_repository",
    ]  # fmt: skip
    for moment in moments:
        process = start(recipe)
        assert wait_for(process, lambda m=moment: any(out.glob(m))), f"{moment}: {process.communicate()}"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    last = start(recipe)
    _, err = last.communicate()
    assert last.returncode == 0, err
    record = RunRecord.read(out / "run.json")
    assert [step.status for step in record.steps] == ["reused"] * 3
    assert len(record.packaged) == 2
    assert [path for path in files_below(out) if "optkit-" in path or ".optkit" in path] == []

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
        + "    if any(pathlib.Path(__file__).with_name('out').glob('.export-torchscript.optkit-*')):\n"
        + "        time.sleep(60)\n"
    )
    process = start(recipe)
    assert wait_for(process, lambda: any((tmp_path / "out").glob(".export-torchscript.optkit-*")))
    time.sleep(0.3)
    for number in sent:
        process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert f"interrupted. Finished steps are kept; to continue, run: optkit run {recipe} -o {tmp_path / 'out'}\n" in err
    assert [path for path in files_below(tmp_path / "out") if "export-torchscript" in path or "optkit-" in path] == []


ENDLESS = "__import__('hashlib').pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"  # does not come back to Python, where signals are handled
IN_A_CLASS = "type('C', (), {'d': type('D', (), {'__set_name__': lambda *_: __import__('time').sleep(60)})()})"


@pytest.mark.parametrize("code", [ENDLESS, IN_A_CLASS], ids=["in a library", "while a class is created"])
def test_ctrl_c_ends_the_import_of_a_model_within_a_second(tmp_path: Path, code: str) -> None:
    recipe = write_project(tmp_path)
    with (tmp_path / "model.py").open("a") as stream:
        stream.write(f"\nopen({str(tmp_path / 'begun')!r}, 'w').close()\n{code}\n")
    process = start(recipe)
    assert wait_for(process, (tmp_path / "begun").exists)
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 3  # a second, on a busy machine
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "to continue, run: optkit run" in err


@pytest.mark.parametrize(
    ("act", "says"),
    [
        ("__import__('os').abort()", "a library ended the process (SIGABRT)"),
        (
            "__import__('os').kill(__import__('os').getpid(), 9)",
            "the system killed the process (SIGKILL), usually because memory",
        ),
        ("(_ for _ in ()).throw(MemoryError('Unable to allocate 9 TiB'))", "Unable to allocate 9 TiB"),
    ],
    ids=["abort", "kill", "memory"],
)
def test_a_step_that_ends_the_process_has_failed_and_the_others_go_on(tmp_path: Path, act: str, says: str) -> None:
    recipe = write_project(tmp_path, steps=[ONNX, TORCHSCRIPT])
    edit(
        tmp_path / "model.py",
        "def forward(self, x):",
        f"def forward(self, x):\n        torch.onnx.is_in_onnx_export() and {act}",
    )
    process = start(recipe)
    _, err = process.communicate()
    assert process.returncode == 2, err
    assert "Traceback" not in err
    record = RunRecord.read(tmp_path / "out" / "run.json")
    onnx, torchscript = record.steps
    assert (onnx.status, torchscript.made) == ("failed", True)
    assert says in str(onnx.reason)
    assert record.bench is not None
    assert files_below(tmp_path / "out").isdisjoint({"export-onnx", ".optkit.lock"})
