"""What the compiling process finds out: dimensions that became constants, settings that this torch has, and the cause of an error."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from optkit.aoti import process, worker
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.errors import StageError
from optkit.pytorch.program import capture


def test_a_dimension_that_becomes_a_constant_while_compiling_is_found() -> None:
    """The compiler has no guards: a comparison of a size decides it for all sizes."""
    specs = [TensorSpec.parse("a:float32[rows,4]"), TensorSpec.parse("b:float32[2,columns]")]
    dims = {name: DimRange(min=2, opt=4, max=16) for name in ("rows", "columns")}

    class Model(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a.sum() + b.sum()

    feed = {"a": np.ones((3, 4), np.float32), "b": np.ones((2, 5), np.float32)}
    program = capture(Model().eval(), feed, specs, [TensorSpec.parse("y:float32[]")], dims)
    assert worker._constants(program) == []
    second = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"][1]
    assert second.shape[1] == 5  # decides it
    assert worker._constants(program) == [[1, 1, 5]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "RuntimeError"),
        ("\n first \nsecond", "RuntimeError: first"),
        (
            "C++ compile error\n\nCommand:\ng++ x\n\nOutput:\nx.cpp:3:1: error: no such type",
            "RuntimeError: x.cpp:3:1: error: no such type",
        ),
    ],
)
def test_the_cause_of_an_error_is_one_line(text: str, said: str) -> None:
    assert worker._fault(RuntimeError(text)) == said


def test_settings_of_other_releases_are_known_as_missing() -> None:
    config = SimpleNamespace(freezing=False, cpp=SimpleNamespace(march=None))
    assert worker._has(config, "freezing")
    assert worker._has(config, "cpp.march")
    assert not worker._has(config, "cpp.dynamic_threads")
    assert not worker._has(config, "aot_inductor.metadata")


def test_a_setting_that_was_given_and_is_missing_is_an_error(tmp_path: Path) -> None:
    job = {
        "task": "compile",
        "cache": str(tmp_path),
        "settings": {"freezing_of_2030": True},
        "needed": ["freezing_of_2030"],
    }
    with pytest.raises(StageError, match=r"^compiling: ValueError: torch .* has no setting freezing_of_2030$"):
        process.run_job(job, tmp_path, "compiling")


def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    job = tmp_path / "job.json"
    os.mkfifo(tmp_path / "never")  # np.load of it waits for ever
    given = {"task": "check", "result": str(tmp_path / "result"), "package": str(tmp_path / "never")}
    code = f"""
import json, os, subprocess, sys
open({str(job)!r}, "w").write(json.dumps({given} | {{"parent": os.getpid()}}))
child = subprocess.Popen([sys.executable, "-P", {str(process.WORKER)!r}, {str(job)!r}], start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 30
    while Path(f"/proc/{child}").exists() and time.monotonic() < end:
        time.sleep(0.1)
    gone = not Path(f"/proc/{child}").exists()
    if not gone:
        os.kill(child, signal.SIGKILL)
    assert gone
