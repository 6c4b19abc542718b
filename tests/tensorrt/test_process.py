"""The worker process: killed, crashed, cancelled, under another interpreter; each time an error, and nothing left behind."""

import ast
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from optkit.artifact import Artifact
from optkit.errors import OutputError, RunnerError, StageError
from optkit.progress import reporting
from optkit.stages import BuildTensorRt
from optkit.tensorrt import process as worker_process
from optkit.tensorrt.installed import forget
from optkit.tensorrt.process import WORKER, TensorRtProcess
from tests.support import ROOT
from tests.support.project import CommandLine, files_below

RTX = BuildTensorRt(runtime="tensorrt-rtx")


def at_each(kind: str, monkeypatch: pytest.MonkeyPatch, act: Any) -> list[TensorRtProcess]:
    """Let `act(process)` happen at each message of a kind: `progress` is amidst the build. Return the processes that were started."""
    started: list[TensorRtProcess] = []

    class Watched(TensorRtProcess):
        def _messages(self) -> Iterator[dict[str, Any]]:
            started.append(self)
            for message in super()._messages():
                if kind in message:
                    act(self)
                yield message

    monkeypatch.setattr("optkit.stages.build_tensorrt.TensorRtProcess", Watched)
    return started


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(
    ("number", "advice"),
    [(signal.SIGKILL, "memory ran out"), (signal.SIGSEGV, "TensorRT crashed"), (signal.SIGABRT, "-vv")],
)
def test_a_death_by_signal_is_an_error_that_says_what_to_do(
    number: signal.Signals,
    advice: str,
    linear: Artifact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    optkit: CommandLine,
) -> None:
    started = at_each("progress", monkeypatch, lambda process: os.kill(process._process.pid, number))
    before = files_below(tmp_path)

    found = optkit(
        "build-engine", linear.path, "--dim", "batch=1:4:16", "-o", tmp_path / "x.plan", "--runtime", "tensorrt-rtx"
    )

    assert found.code == 2
    assert f"killed by {number.name}; nothing was written" in found.err
    assert advice in found.err
    assert files_below(tmp_path) == before
    assert not started[0].folder.exists()


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("moment", ["progress", "result"])
def test_ctrl_c_cancels_the_build_through_tensorrt(
    moment: str, linear: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: TensorRtProcess) -> None:
        raise KeyboardInterrupt

    started = at_each(moment, monkeypatch, interrupt)
    before = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        RTX.run(linear, tmp_path / "out")
    assert started[0]._process.returncode == 0, "it was killed, where it should have answered that it is cancelled"
    assert time.perf_counter() - before < worker_process._GRACE_S
    assert files_below(tmp_path / "out") == set()
    assert not started[0].folder.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("rtx")
def test_ctrl_c_on_the_command_line_ends_with_130_and_leaves_nothing(tmp_path: Path) -> None:
    model = _large(tmp_path / "large.onnx")
    command = [
        Path(sys.executable).with_name("optkit"),
        "build-engine",
        model,
        "-o",
        "large.plan",
        "--runtime",
        "tensorrt-rtx",
        "-vv",
    ]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    for line in process.stderr:
        if "TensorRT" in line and "info" in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert files_below(tmp_path) == {"large.onnx"}


def _large(path: Path, layers: int = 60) -> Path:
    """Write a chain of convolutions that takes TensorRT seconds."""
    rng = np.random.default_rng(0)
    sizes = [3, *(16 + 8 * (i % 9) for i in range(layers))]
    weights = [
        numpy_helper.from_array(rng.standard_normal((b, a, 3, 3)).astype(np.float32) / 30, f"w{i}")
        for i, (a, b) in enumerate(itertools.pairwise(sizes))
    ]
    nodes = [helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"], pads=[1, 1, 1, 1]) for i in range(layers)]
    x = helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, 3, 32, 32])
    y = helper.make_tensor_value_info(f"x{layers}", TensorProto.FLOAT, [1, sizes[-1], 32, 32])
    graph = helper.make_graph(nodes, "large", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.usefixtures("rtx")
def test_the_phases_of_the_build_are_shown_and_all_end(linear: Artifact, tmp_path: Path) -> None:
    class Recorder:
        open = 0
        begun: list[str] = []  # noqa: RUF012
        steps = 0

        def begin(self, description: str, total: int | None) -> None:
            self.begun.append(description)
            self.open += 1

        def advance(self) -> None:
            self.steps += 1

        def end(self) -> None:
            self.open -= 1

    recorder = Recorder()
    with reporting(recorder):
        RTX.run(linear, tmp_path)
    assert any(name.startswith("Building engine") for name in recorder.begun), recorder.begun
    assert recorder.steps > 0
    assert recorder.open == 0


def test_the_end_of_the_parent_is_the_end_of_the_worker(tmp_path: Path) -> None:
    """Its input ends when the parent dies in any way; a build then ends within its grace."""
    job = tmp_path / "job.json"
    job.write_text('{"task": "sleep"}')
    code = (
        "import sys, threading, time; sys.path.insert(0, sys.argv[1]); import optkit.tensorrt.worker.jobs as w; w.GRACE_S = 0.2\n"
        "threading.Thread(target=w.watch_input, args=(threading.Event(),), daemon=True).start(); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(ROOT)], stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.close()
    assert process.wait(timeout=20) == 1


def test_a_worker_that_fails_in_another_way_is_told_with_its_last_words(
    linear: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text("import sys\nprint('out of luck', file=sys.stderr)\nsys.exit(7)\n")
    monkeypatch.setattr(worker_process, "WORKER", worker)
    with pytest.raises(
        RunnerError, match=r"ended with exit code 7 and no answer\. Its last line of output: out of luck"
    ):
        RTX.run(linear, tmp_path / "out")


@pytest.mark.parametrize("arguments", [["--dim", "batch=0:4:16"], ["--require", "fp16=2"], ["--runtime", "magic"]])
def test_a_command_that_is_refused_starts_no_process(
    arguments: list[str], linear: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optkit: CommandLine
) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    found = optkit("build-engine", linear.path, "-o", tmp_path / "m.plan", *arguments)
    assert found.code == 2
    assert not (tmp_path / "m.plan").exists()


@pytest.mark.usefixtures("rtx")
def test_a_build_starts_one_process(
    linear: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optkit: CommandLine
) -> None:
    """The build's worker reports whether there is a GPU, so no second process starts."""
    started = []

    class Counted(subprocess.Popen[str]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            started.append(args)
            super().__init__(*args, **kwargs)

    forget()
    monkeypatch.setattr(subprocess, "Popen", Counted)
    found = optkit(
        "build-engine", linear.path, "-o", tmp_path / "m.plan", "--dim", "batch=1:4:16", "--runtime", "tensorrt-rtx"
    )
    assert (found.code, len(started)) == (0, 1)


@pytest.mark.usefixtures("rtx")
def test_no_large_library_is_imported_beside_a_build(linear: Artifact, tmp_path: Path) -> None:
    """Each of these takes memory from a build that may need all there is, and where no GPU is none of them is of use."""
    arguments = ["build-engine", str(linear.path), "-o", str(tmp_path / "m.plan"), "--dim", "batch=1:4:16"]
    code = f"""
import sys
import optkit.cli
sys.argv = ["optkit", *{arguments!r}, "--runtime", "tensorrt-rtx", "-q"]
try:
    optkit.cli.main()
finally:
    print(sorted({{"numpy", "onnx", "onnx_ir", "torch", "onnxruntime"}} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_a_fault_of_the_worker_itself_ends_with_its_reason_and_no_crash() -> None:
    with (
        TensorRtProcess({}) as worker,
        pytest.raises(RunnerError, match=r"exit code 1 .* Its last line of output: KeyError: 'task'"),
    ):
        worker.answer()


def test_no_room_for_temporary_files_is_told(linear: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(OutputError, match=r"temporary files cannot be written \(No such file or directory\).* TMPDIR"):
        RTX.run(linear, tmp_path / "out")


def test_nothing_is_imported_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt.py").write_text("raise SystemExit('a module of the user')")
    (tmp_path / "json.py").write_text("raise SystemExit('a module of the user')")
    monkeypatch.chdir(tmp_path)
    with TensorRtProcess({"task": "facts", "versions": True}) as worker:
        assert "versions" in worker.answer()


@pytest.mark.parametrize("safe_path", ["", "1"])
def test_no_module_of_optkit_stands_in_for_one_that_tensorrt_imports(
    safe_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python puts a folder that it runs on the path of imports, with PYTHONSAFEPATH too; the modules in it have common names."""
    (tmp_path / "tensorrt.py").write_text(
        "import importlib.util\n"
        "names = ('session', 'network', 'jobs', 'process', 'qdq_rules')\n"
        "__version__ = [name for name in names if importlib.util.find_spec(name)]\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSAFEPATH", safe_path)
    with TensorRtProcess({"task": "facts", "versions": True}) as worker:
        assert worker.answer()["versions"]["tensorrt"] == []


def test_whether_a_gpu_is_here_does_not_cost_the_import_of_tensorrt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        (tmp_path / f"{name}.py").write_text("import pathlib; pathlib.Path(__file__).with_name('imported').touch()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with TensorRtProcess({"task": "facts", "versions": False}) as worker:
        assert set(worker.answer()) == {"gpu", "no_gpu"}
    assert not (tmp_path / "imported").exists()


def test_an_interpreter_that_is_none_is_told(linear: Artifact, tmp_path: Path) -> None:
    with pytest.raises(
        RunnerError, match=r"/nowhere/python: cannot be started \(No such file or directory\); expected a Python"
    ):
        BuildTensorRt(python="/nowhere/python").run(linear, tmp_path / "out")


def test_an_interpreter_without_tensorrt_is_told(linear: Artifact, tmp_path: Path) -> None:
    """A bare environment, as --tensorrt-python may name one by mistake."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python = tmp_path / "bare" / "bin" / "python"
    with pytest.raises(StageError, match=rf"neither tensorrt nor tensorrt-rtx is installed for {python}"):
        BuildTensorRt(python=str(python)).run(linear, tmp_path / "out")


def test_the_worker_is_python_3_8_and_needs_nothing_of_optkit() -> None:
    trees = {path.stem: ast.parse(path.read_text(), feature_version=(3, 8)) for path in WORKER.glob("*.py")}
    assert len(trees) > 10
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    imported = {name.name.partition(".")[0] for node in nodes if isinstance(node, ast.Import) for name in node.names}
    sources = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    imported |= {str(node.module).partition(".")[0] for node in sources if node.level == 0}
    assert imported - sys.stdlib_module_names == {"numpy", "pycuda"}  # and TensorRT, by name
    assert {node.level for node in sources} == {0, 1}  # 2 would be a module of optkit
    assert {node.module for node in sources if node.level} <= set(trees)
    assert not {name: found for name, tree in trees.items() if (found := _later_than_3_8(tree))}
    assert _later_than_3_8(ast.parse("zip(a, b, strict=True)\n'x'.removeprefix('y')\nx: int | None = 1")) == {
        "strict", "removeprefix", "annotation of x"
    }  # fmt: skip


def _later_than_3_8(tree: ast.Module) -> set[str]:
    """Return what parses as Python 3.8 and fails there: methods and arguments that came later, and annotations that are evaluated."""
    later = {
        "removeprefix",
        "removesuffix",
        "is_relative_to",
        "with_stem",
        "randbytes",
        "cache",
        "pairwise",
        "batched",
        "bit_count",
    }
    nodes = list(ast.walk(tree))
    found = {node.attr for node in nodes if isinstance(node, ast.Attribute)} & later
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    zips = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "zip"]
    found |= {"strict"} & {keyword.arg for call in zips for keyword in call.keywords}  # json has one that is older
    found |= {keyword.arg or "" for call in calls for keyword in call.keywords} & {
        "encoding_errors",
        "delete_on_close",
        "root_dir",
        "missing_ok",
    }
    postponed = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    if not postponed:
        found |= {f"annotation of {ast.unparse(node.target)}" for node in nodes if isinstance(node, ast.AnnAssign)}
    return found
