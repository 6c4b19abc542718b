"""The record of a benchmark as a pandas frame; a stand-in takes the place of pandas, which optkit does not need."""

import importlib.machinery
import sys
from types import ModuleType

import pytest

from optkit.artifact.findings import CallParts, GpuConditions
from optkit.errors import MissingDependency
from tests.support.runs import bench


@pytest.fixture
def pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a module in the place of pandas whose frame is the list of its rows."""
    module = ModuleType("pandas")
    module.__spec__ = importlib.machinery.ModuleSpec("pandas", None)
    setattr(module, "DataFrame", list)  # noqa: B010
    monkeypatch.setitem(sys.modules, "pandas", module)


@pytest.mark.usefixtures("pandas")
def test_a_frame_has_a_row_for_each_artifact_and_batch() -> None:
    record = bench({"m.onnx": 1.0, "int8.onnx": 0.5}, batches=(1, 8))
    frame = record.to_frame()
    assert [(row["artifact"], row["batch"]) for row in frame] == [
        ("m.onnx", 1),
        ("m.onnx", 8),
        ("int8.onnx", 1),
        ("int8.onnx", 8),
    ]
    reference, _, faster, _ = frame
    assert reference["times_faster"] is None
    assert faster["times_faster"] == pytest.approx(2.0, rel=0.01)
    assert faster["times_faster_low"] < 2 < faster["times_faster_high"]
    assert faster["verdict"] == "faster"
    assert faster["p50_ms"] == pytest.approx(0.5)
    assert faster["size_bytes"] == 1_000_000
    assert not faster["busy"]


@pytest.mark.usefixtures("pandas")
def test_a_cell_is_one_value_and_a_column_says_its_unit() -> None:
    record = bench({"m.onnx": 1.0})
    gpu = GpuConditions(
        sm_clock_mhz=1000, memory_clock_mhz=None, max_temperature_c=50, mean_power_w=100, energy_mj_per_inference=3,
        throttle_reasons=("heat",), throttled_calls=0, throttled_calls_kept=0,
    )  # fmt: skip
    parts = CallParts(enqueue_ms=0.1, copy_in_ms=0.2, compute_ms=0.3, copy_out_ms=0.4)
    measured = tuple(m.model_copy(update={"gpu": gpu, "parts": parts}) for m in record.measurements)
    (row, _) = record.model_copy(update={"measurements": measured}).to_frame()
    assert all(value is None or isinstance(value, (str, int, float)) for value in row.values())
    assert (row["compute_ms"], row["mean_power_w"]) == (0.3, 100)
    numbers = {name for name, value in row.items() if isinstance(value, float)}
    with_unit = ("_ms", "_per_s", "_mhz", "_c", "_w", "_per_inference", "_faster", "_low", "_high")
    assert all(name.endswith(with_unit) for name in numbers)


def test_without_pandas_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependency, match=r"pandas is not installed\. Run: pip install 'pandas'"):
        bench({"m.onnx": 1.0}).to_frame()
