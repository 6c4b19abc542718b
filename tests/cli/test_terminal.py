"""What a person sees on a terminal, where progress is drawn and wiped away."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from optkit.cli.output import _Bars, _bars
from tests.support.project import write_project

pty = pytest.importorskip("pty", reason="there are no pseudo-terminals here")
EXPORT = ("export", "torchscript", "model.py:build", "--input", "x:float32[batch,4]", "--dim", "batch=1:4:8")


def on_terminal(folder: Path, *arguments: str) -> str:
    """Return all that a command writes to a terminal, control sequences included."""
    ours, its = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120"}
    command = [sys.executable, "-m", "optkit", *arguments]
    with subprocess.Popen(command, cwd=folder, env=environment, stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        written = b""
        try:
            while part := os.read(ours, 4096):
                written += part
        except OSError:  # how Linux says that the other side is closed
            pass
        finally:
            os.close(ours)
    assert process.returncode == 0, written
    return written.decode()


def test_the_answer_starts_on_a_line_of_its_own(tmp_path: Path) -> None:
    write_project(tmp_path)
    before, _, after = on_terminal(tmp_path, *EXPORT, "-o", "m.pt").partition("m.pt (torchscript")
    assert "parity: equal" in after
    assert "export-torchscript" in before  # the progress was drawn
    since_the_line_was_erased = before.rpartition("\x1b[2K")[2]
    assert re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", since_the_line_was_erased).strip() == ""
    assert "export-torchscript ━" not in after


def test_the_name_of_a_file_in_the_progress_is_no_markup() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120, color_system=None)
    with _bars(console) as bars:
        _Bars(bars).begin("build m[/a].py", None)
    assert "build m[/a].py" in text.getvalue()
