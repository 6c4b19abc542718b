"""The benchmark of a build's overhead: its verdict, its table, and its floor, which does what optkit's worker does."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support import BENCHMARKS

SCRIPT = BENCHMARKS / "tensorrt_build.py"
ENTRY: dict[str, Any] = {
    "model": "digits", "precision": "fp32", "onnx_mb": 0.6, "plan_mb": 0.9, "bare_s": 0.5, "optkit_s": 1.2, "overhead_s": 0.7,
    "overhead_cpu_s": 0.6, "bare_mib": 190.0, "optkit_mib": 220.0, "memory_ratio": 1.16, "same_bytes": True, "load_average": 1.0,
    "runs": {"bare": [{}, {}, {}], "optkit": [{}, {}, {}]},
}  # fmt: skip


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tensorrt_build", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("changed", "good"), [({}, True), ({"overhead_s": 1.01}, False), ({"memory_ratio": 1.21}, False)]
)
def test_a_missed_target_is_a_negative_verdict(script: ModuleType, changed: dict[str, float], good: bool) -> None:
    assert script._good(ENTRY | changed) is good


def test_the_table_names_the_worst(script: ModuleType) -> None:
    machine = {"cpu": "a processor", "cores": 2, "system": "Linux", "python": "3.11", "libraries": {"onnx": "1.23"}}
    entries = [ENTRY, ENTRY | {"precision": "int8", "overhead_s": 0.95}]
    text = script._markdown({"machine": machine, "comparisons": entries})
    assert "At most 0.95 s more on the clock" in text
    assert "| digits | int8 | 0.6 | 0.9 | 0.50 | 1.20 | 0.95 |" in text
    assert "Medians of 3 pairs or more. a processor, 2 cores, Linux; Python 3.11, onnx 1.23." in text


@pytest.mark.usefixtures("rtx")
def test_both_sides_build_the_same_engine(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linear: Any
) -> None:
    monkeypatch.setitem(script.MODELS, "linear", ("", ("input:float32[batch,4]",), {"batch": "1:4:16"}, ""))
    entry = script._compare("linear", "fp32", linear.path, tmp_path, 2)
    assert entry["same_bytes"]
    assert [len(runs) for runs in entry["runs"].values()] == [2, 2]
    assert [len(runs) for runs in entry["watched"].values()] == [2, 2]
    for runs in entry["runs"].values():
        assert runs[0]["seconds"] > 0
    for runs in entry["watched"].values():
        assert runs[0]["peak_mib"] > 50  # of TensorRT's libraries alone; a tree whose worker is missed has less
