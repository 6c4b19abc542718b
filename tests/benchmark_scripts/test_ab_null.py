"""What `benchmarks/ab_null.py` makes of its trials: a benchmark that is wrong too often must not pass it."""

import argparse
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support import BENCHMARKS
from tests.support.measured import speed_up

OPTIONS = argparse.Namespace(runtime="onnx", threads=1, load=1)


@pytest.fixture
def ab_null(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "ab_null", raising=False)
    import ab_null

    return ab_null


def trials(copies: list[tuple[float, ...]], longer: tuple[float, ...] = (0.95, 0.951, 0.952)) -> list[dict[str, Any]]:
    return [
        {
            "seed": seed, "seconds": 1.0, "load_average": 2.0, "p50_ms": 0.1,
            "copy": speed_up("copy", *ratios).model_dump(mode="json"),
            "longer": speed_up("longer", *longer).model_dump(mode="json"),
        }
        for seed, ratios in enumerate(copies)
    ]  # fmt: skip


RIGHT, WRONG = (0.99, 1.0, 1.01), (1.02, 1.0201, 1.0202)


@pytest.mark.parametrize(("wrong", "passed"), [(1, False), (5, True), (8, True), (9, False)])
def test_coverage_must_lie_between_92_and_98_percent(ab_null: ModuleType, wrong: int, passed: bool) -> None:
    found = ab_null._summary(trials([RIGHT] * (100 - wrong) + [WRONG] * wrong), OPTIONS)
    assert found["coverage"] == pytest.approx(1 - wrong / 100)
    assert found["passed"] is passed


def test_a_ratio_that_scatters_does_not_pass(ab_null: ModuleType) -> None:
    wide = [(0.9, 0.97, 1.05), (0.95, 1.03, 1.1)] * 48
    found = ab_null._summary(trials([*wide, *[WRONG] * 4]), OPTIONS)
    assert found["coverage"] == 0.96
    assert found["sd_log_ratio"] > 0.015
    assert not found["passed"]


def test_a_slow_down_that_is_not_found_does_not_pass(ab_null: ModuleType) -> None:
    found = ab_null._summary(trials([RIGHT] * 95 + [WRONG] * 5, longer=RIGHT), OPTIONS)
    assert (found["slow_found"], found["passed"]) == (0.0, False)


def test_a_line_that_was_cut_off_is_measured_again(ab_null: ModuleType, tmp_path: Path) -> None:
    kept = tmp_path / "trials.jsonl"
    whole = [json.dumps(trial) for trial in trials([RIGHT, RIGHT])]
    kept.write_text("\n".join([*whole, whole[0][:40]]))
    assert [trial["seed"] for trial in ab_null._read(kept)] == [0, 1]
