"""Commands on single files whose process dies, or that are interrupted: one plain line, no traceback, and nothing left."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.project import edit, files_below, write_project


def export(folder: Path, code: str) -> "subprocess.Popen[str]":
    (folder / "model.py").unlink(missing_ok=True)
    write_project(folder)
    edit(
        folder / "model.py",
        "def forward(self, x):",
        f"def forward(self, x):\n        torch.onnx.is_in_onnx_export() and {code}",
    )
    command = [sys.executable, "-m", "optkit", "export", "onnx", "model.py:build", "--input", "x:float32[2,4]"]
    command += ["--exporter", "torchscript", "-o", "model.onnx"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("__import__('os').abort()", "error: a library ended the process (SIGABRT)."),
        (
            "__import__('os').kill(__import__('os').getpid(), 9)",
            "error: the system killed the process (SIGKILL), usually because",
        ),
    ],
)
def test_a_library_that_aborts_is_an_error_in_one_line(code: str, says: str, tmp_path: Path) -> None:
    process = export(tmp_path, code)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert err.splitlines()[-1].startswith(says)
    assert "Traceback" not in err
    assert "model.onnx" not in files_below(tmp_path)


def test_what_it_left_goes_when_it_is_run_again(tmp_path: Path) -> None:
    export(tmp_path, "__import__('os').abort()").communicate(timeout=120)
    assert any("optkit-" in name for name in files_below(tmp_path))  # its process could not remove it
    again = export(tmp_path, "None")
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert {name for name in files_below(tmp_path) if name.startswith(".")} == set()


def test_ctrl_c_says_how_to_start_again(tmp_path: Path) -> None:
    process = export(tmp_path, "(open('begun', 'w').close(), __import__('time').sleep(60))")
    while not (tmp_path / "begun").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("interrupted. To start again, run: optkit export onnx model.py:build")
    assert files_below(tmp_path) - {"begun"} == {"model.py", "recipe.yaml"}
