"""The GPU benchmark, rehearsed: on the CPU as a whole, and its TensorRT part on the stand-in."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

HERE = Path(__file__).absolute()
SCRIPT = HERE.parents[2] / "benchmarks" / "gpu" / "run.py"


def test_a_rehearsal_writes_every_row_with_a_number_or_a_reason(tmp_path: Path) -> None:
    """On one batch of the smallest model; nothing of optkit may be imported, since the GPU machine has no pydantic."""
    block = "import sys; sys.modules['optkit'] = None; sys.modules['pydantic'] = None; import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    options = [
        "--device",
        "cpu",
        "--models",
        "digits",
        "--batches",
        "2",
        "--precisions",
        "fp32",
        "--json",
        tmp_path / "out.json",
    ]
    found = subprocess.run([sys.executable, "-c", block, SCRIPT, *options], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    rows = {row["backend"]: row for row in json.loads((tmp_path / "out.json").read_text())["rows"]}
    assert set(rows) == {"eager", "torchscript", "cuda-graphs", "compile", "onnxruntime", "tensorrt", "tensorrt+graph"}
    for backend in ("eager", "torchscript", "onnxruntime"):
        assert rows[backend]["equal"] is True
        assert rows[backend]["p50_ms"] > 0
    assert rows["tensorrt"]["not_run"] == "engines run on a GPU only"
    assert "not run: engines run on a GPU only" in found.stdout


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TorchScript, by which the script exports
def test_its_engines_give_the_models_answers_on_the_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE.parents[1] / "standin"))
    monkeypatch.setenv("STANDIN_TENSORRT", "11")
    monkeypatch.syspath_prepend(SCRIPT.parent)
    spec = importlib.util.spec_from_file_location("gpu_run", SCRIPT)
    assert spec
    assert spec.loader
    run = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_run", run)
    spec.loader.exec_module(run)
    monkeypatch.setattr(run, "MIN_SECONDS", 0.0)
    model = run.MODELS["digits"]
    with torch.inference_mode():
        right = model.build()(*model.inputs(2)).numpy()
        case = run.Case(model, "fp32", 2, torch.device("cpu"), tmp_path, right)
        for graph in (False, True):
            found = run.run_engine(case, graph)
            np.testing.assert_allclose(found["answer"], right, atol=1e-5)
            assert len(found["times_ms"]) >= 30
            assert set(found["parts"]) == {"enqueue_ms", "copy_in_ms", "compute_ms", "copy_out_ms"}
