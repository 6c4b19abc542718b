"""The GPU benchmark, rehearsed: on the CPU as a whole, its limits on parts that fail, and its TensorRT part on the stand-in."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from tests.support import BENCHMARKS, ROOT

HERE = Path(__file__).absolute()
FOLDER = BENCHMARKS / "gpu"
ABSENT = ("optkit", "pydantic", "typer", "rich", "yaml", "onnxscript", "tritonclient", "tensorrt_rtx_bindings")
NOT_RUN = ("cuda-graphs", "tensorrt", "tensorrt+graph", "compile")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> object:
    """Return load(name): a module of the benchmark, by the name that its own imports use."""
    monkeypatch.syspath_prepend(FOLDER)

    def module(name: str) -> ModuleType:
        monkeypatch.delitem(sys.modules, name, raising=False)
        found = importlib.import_module(name)
        monkeypatch.setitem(sys.modules, name, found)
        return found

    return module


def test_a_rehearsal_writes_every_row_with_a_number_or_a_reason(tmp_path: Path) -> None:
    """With no more than the GPU machine has: torch, onnx, onnxruntime and numpy, in every process."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({ABSENT!r}))\n")
    options = ("--device", "cpu", "--models", "digits", "--batches", "2", "--precisions", "fp32")
    found = subprocess.run(
        [sys.executable, FOLDER / "run.py", *options, "--json", tmp_path / "out.json"],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr
    document = json.loads((tmp_path / "out.json").read_text())
    rows = {row["backend"]: row for row in document["rows"]}
    assert set(rows) == {"eager", "torchscript", "onnxruntime", *NOT_RUN}
    for backend in ("eager", "torchscript", "onnxruntime"):
        assert rows[backend].get("equal") is True, rows[backend]
        assert rows[backend]["p50_ms"] > 0
    assert rows["tensorrt"]["not_run"] == "engines run on a GPU only"
    assert (document["machine"]["torch"], document["machine"]["gpu"]) == (torch.__version__, None)
    assert "**3 measured, 0 of them not equal to eager FP32; 4 not run.**" in (tmp_path / "out.md").read_text()
    assert "| digits | fp32 | 2 | tensorrt | not run: engines run on a GPU only |" in found.stdout


PARTS = {
    "kills itself": ("os.kill(os.getpid(), 9)", "the process was ended by SIGKILL"),
    "fails": ("raise SystemExit('out of luck')", "the process ended with 1: out of luck"),
    "does not end": ("time.sleep(60)", "cut off after 2 s"),
}


MACHINE = {"device": "cpu", "gpu": None, "torch": "2.13.0"}


def quick_part(folder: Path, then: str = "") -> Path:
    """Return a part that writes one row at batch 1 without measuring, and then does something."""
    row = {"model": "digits", "precision": "fp32", "batch": 1, "p50_ms": 1.0, "p99_ms": 1.0, "samples_per_s": 1.0}
    row |= {"max_abs": 0.0, "cosine": 1.0, "equal": True}
    part = folder / "part.py"
    part.write_text(
        "import json, os, sys, time\n"
        "backend, path = sys.argv[1], sys.argv[sys.argv.index('--rows') + 1]\n"
        "rows = open(path, 'w')\n"
        f"print(json.dumps({{'machine': {MACHINE!r}}}), file=rows)\n"
        f"print(json.dumps({row!r} | {{'backend': backend}}), file=rows, flush=True)\n{then}"
    )
    return part


@pytest.mark.parametrize("case", PARTS)
def test_a_part_that_fails_costs_its_own_rows_alone(
    case: str, load: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault, reason = PARTS[case]
    part = quick_part(tmp_path, f"if backend == 'torchscript':\n    {fault}\n")
    run = load("run")
    monkeypatch.setattr(run, "PART", part)
    monkeypatch.setattr(run, "LIMITS_S", dict.fromkeys(run.LIMITS_S, 2.0))
    backends = "eager,torchscript,onnxruntime"
    options = f"--models digits --batches 1,8 --precisions fp32 --backends {backends} --json {tmp_path / 'out.json'}"
    monkeypatch.setattr(sys, "argv", ["run.py", *options.split()])
    assert run.main() == 0
    rows = {(row["backend"], row["batch"]): row for row in json.loads((tmp_path / "out.json").read_text())["rows"]}
    assert len(rows) == 6
    assert all(rows[backend, 1]["equal"] for backend in backends.split(","))  # what was written before counts
    assert rows["torchscript", 8]["not_run"] == reason


def test_without_a_gpu_nothing_is_written_over(
    load: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    monkeypatch.setattr(sys, "argv", ["run.py", "--models", "digits", "--json", str(tmp_path / "out.json")])
    assert load("run").main() == 2
    assert "not run: torch finds no NVIDIA GPU here" in capsys.readouterr().out
    assert not (tmp_path / "out.json").exists()


def test_backends_that_are_run_again_leave_the_others_rows(
    load: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.json"
    run = load("run")
    monkeypatch.setattr(run, "PART", quick_part(tmp_path))
    for backends, more in (("eager,torchscript", ()), ("torchscript", ("--keep",)), ("torchscript", ())):
        options = f"--device cpu --models digits --batches 1 --precisions fp32 --backends {backends} --json {path}"
        monkeypatch.setattr(sys, "argv", ["run.py", *options.split(), *more])
        assert run.main() == 0
        found = [row["backend"] for row in json.loads(path.read_text())["rows"]]
        assert found == (["eager", "torchscript"] if backends != "torchscript" or more else ["torchscript"])


def test_no_budget_left_is_told(load: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = f"--models digits --batches 1 --budget 0 --json {tmp_path / 'out.json'}"
    monkeypatch.setattr(sys, "argv", ["run.py", *options.split()])
    assert load("run").main() == 0
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert {row["not_run"] for row in rows} == {"no time was left of 0 s"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TorchScript, by which the script exports
def test_its_engines_give_the_models_answers_on_the_stand_in(
    load: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests" / "support" / "standin"))
    monkeypatch.setenv("STANDIN_TENSORRT", "11")
    models, backends = load("models"), load("backends")
    monkeypatch.setattr(backends, "MIN_SECONDS", 0.0)
    model = models.MODELS["digits"]
    with torch.inference_mode():
        right = model.build()(*model.inputs(2)).numpy()
        case = backends.Case(model, "fp32", 2, torch.device("cpu"), tmp_path, right)
        for graph in (False, True):
            found = backends.run_engine(case, graph)
            np.testing.assert_allclose(found["answer"], right, atol=1e-5)
            assert len(found["times_ms"]) >= 30
            assert set(found["parts"]) == {"enqueue_ms", "copy_in_ms", "compute_ms", "copy_out_ms"}
