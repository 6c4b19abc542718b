"""An export that does not end is stopped, and what follows it is as if it had not been."""

import importlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from optkit.artifact import Artifact
from optkit.checks import Prover, Requirements
from optkit.choose.stage import run_stage
from optkit.data import Samples
from optkit.errors import StageError
from optkit.pytorch import dynamo
from optkit.pytorch.source import make_source
from optkit.stages import ExportOnnx
from tests.support import zoo

CODE = """
    import torch
    from pathlib import Path
    class Endless(torch.nn.Module):
        def forward(self, x):
            if torch.compiler.is_exporting():
                Path(__file__).with_name("started").touch()
                while True:
                    try:
                        sum(range(10_000))
                    except Exception:
                        pass  # as torch does with what goes wrong in its simplifications
            return x * 2
"""
STOPPED = (
    "the dynamo exporter was stopped after 0.3 s of processor time; with many dynamic dimensions it may never end. "
    "Declare dimensions that need not vary, such as height and width, as numbers; or use --exporter torchscript; or raise the limit "
    "with --dynamo-limit-s 3."
)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "m.py"
    path.write_text(textwrap.dedent(CODE))
    return path


@pytest.fixture
def endless(code: Path) -> Artifact:
    return make_source(f"{code}:Endless", code.parent / "source", zoo.specs("x:float32[batch,4]"), zoo.BATCH)


def test_it_is_stopped_and_told_what_to_do(endless: Artifact, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGPROF)
    with pytest.raises(StageError) as caught:
        ExportOnnx(exporter="dynamo", dynamo_limit_s=0.3).run(endless, tmp_path / "out")
    assert str(caught.value) == f"export-onnx: {STOPPED}"
    assert signal.getsignal(signal.SIGPROF) == before
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)
    linear = zoo.SAMPLES["linear"].source(tmp_path / "linear")
    ExportOnnx(exporter="dynamo").run(linear, tmp_path / "next")  # torch is left in order


def test_auto_goes_on_to_the_next_exporter(endless: Artifact, tmp_path: Path) -> None:
    prover = Prover(endless, Samples(endless.inputs, endless.dims), Requirements())
    artifact = run_stage(ExportOnnx(dynamo_limit_s=0.3), endless, tmp_path / "out", prover)
    assert artifact.notes[0].startswith("exported by the torchscript exporter")
    assert f"not chosen: {STOPPED}" in artifact.notes


HIDES = """
    import torch
    class Hides(torch.nn.Module):
        def forward(self, x):
            if torch.compiler.is_exporting():
                try:
                    while True:
                        sum(range(10_000))
                except BaseException:
                    raise SystemError("what C makes of an exception that it did not expect")
            return x * 2
"""


def test_a_stop_that_comes_out_as_another_exception_is_told_as_a_stop(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(textwrap.dedent(HIDES))
    source = make_source(f"{tmp_path}/m.py:Hides", tmp_path / "source", zoo.specs("x:float32[batch,4]"), zoo.BATCH)
    with pytest.raises(StageError) as caught:
        ExportOnnx(exporter="dynamo", dynamo_limit_s=0.3).run(source, tmp_path / "out")
    assert str(caught.value) == f"export-onnx: {STOPPED}"


class Freed:
    def __del__(self) -> None:
        burn(0.2)
        Freed.whole = True

    whole = False


def in_a_destructor() -> bool:
    Freed.whole = False
    value = Freed()
    del value
    return Freed.whole


def in_a_weak_callback() -> bool:
    class Key:
        pass

    class Slow(dict):
        def __delitem__(self, name: object) -> None:
            burn(0.2)
            super().__delitem__(name)

    key, keys = Key(), weakref.WeakKeyDictionary[Key, int]()
    slow = vars(keys)["data"] = Slow()
    keys[key] = 1
    del key
    return not slow


@pytest.mark.parametrize("slow", [in_a_destructor, in_a_weak_callback])
def test_what_frees_an_object_is_not_interrupted(slow: Callable[[], bool]) -> None:
    whole = []

    def free_and_go_on() -> None:
        whole.append(slow())
        burn(1)

    with pytest.raises(dynamo.TimeUp), dynamo.limited(0.05) as limit:
        free_and_go_on()
    assert whole == [True]
    assert limit.passed


def test_a_limit_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        ExportOnnx(dynamo_limit_s=0)


def burn(cpu_seconds: float) -> None:
    end = time.process_time() + cpu_seconds
    while time.process_time() < end:
        pass


def test_what_is_swallowed_once_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamo, "_AGAIN_S", 0.05)
    swallowed = []

    def swallow() -> None:
        try:
            burn(1)
        except dynamo.TimeUp:
            swallowed.append(True)
        burn(1)

    with pytest.raises(dynamo.TimeUp), dynamo.limited(0.05):
        swallow()
    assert len(swallowed) == 1


def test_an_import_is_not_left_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\n"
    (tmp_path / "slow_to_import.py").write_text(slow)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(dynamo, "_AGAIN_S", 0.05)

    def import_it() -> None:
        importlib.import_module("slow_to_import")
        burn(1)

    with pytest.raises(dynamo.TimeUp), dynamo.limited(0.05):
        import_it()
    assert sys.modules.pop("slow_to_import").end > 0


def test_outside_the_main_thread_there_is_no_limit() -> None:
    done = []

    def work() -> None:
        with dynamo.limited(0.01):
            burn(0.1)
        done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done


def test_ctrl_c_ends_the_export_at_once_and_leaves_nothing(code: Path) -> None:
    command = [sys.executable, "-m", "optkit", "export", "onnx", f"{code}:Endless", "-o", str(code.parent / "m.onnx")]
    command += ["--input", "x:float32[batch,4]", "--dim", "batch=1:2:4"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=code.parent)
    while not (code.parent / "started").exists() and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=50)
    assert process.returncode == 130
    assert out == ""
    assert {path.name for path in code.parent.iterdir()} - {"__pycache__"} == {"m.py", "started"}
