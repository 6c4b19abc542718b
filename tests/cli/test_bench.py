"""`optkit bench` and the benchmark of a run: what they show, what they refuse, and what Ctrl-C leaves."""

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from optkit.benchmark import BenchSettings, compare
from optkit.benchmark.bench_record import BenchRecord
from optkit.benchmark.compare import Instruments
from optkit.benchmark.summary import Turn
from optkit.benchmark.timing import Block
from tests.support.project import BENCH, ONNX, TORCHSCRIPT, CommandLine, write_project

CONTRACT = ("--input", "x:float32[batch,4]", "--dim", "batch=1:4:8")
EXPORT = ("export", "onnx", "model.py:build", *CONTRACT, "--exporter", "torchscript", "--opset", "17")
QUICK = ("--batch", "2", "--time-limit-s", "0.001")  # one block


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project's folder, which is the working directory, with one model exported."""
    write_project(tmp_path, steps=[TORCHSCRIPT, ONNX])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def models(optkit: CommandLine, folder: Path) -> tuple[str, str]:
    assert optkit(*EXPORT, "-o", "m.onnx").code == 0
    assert optkit("convert", "fp16", "m.onnx", "-o", "h.onnx").code == 0
    return "m.onnx", "h.onnx"


Play = Callable[..., None]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Return play(median of each block in turn, or an exception): what the clock would give."""

    def played(*times: float | type[BaseException]) -> None:
        left = iter(times)

        def one(call: Callable[[], object], settings: BenchSettings) -> Block:
            found = next(left)
            if not isinstance(found, float):
                raise found
            return Block(np.full(60, found), 3)

        monkeypatch.setattr(compare, "Instruments", functools.partial(Instruments, time_block=one))

    return played


def cells(text: str, first: str) -> list[list[str]]:
    """Return the rows of all tables that begin with this cell."""
    return [row for line in text.splitlines() if (row := re.split(r"\s{1,}", line.strip()))[0] == first]


def test_the_tables_hold_percentiles_comparison_and_what_is_included(
    optkit: CommandLine, models: tuple[str, str], play: Play
) -> None:
    play(*[2.0] * 100)
    found = optkit("bench", *models, *QUICK, "--threads", "1", "--seed", "7")
    assert found.code == 0, found.err
    latencies, compared, included = cells(found.out, "h.onnx")
    assert latencies == ["h.onnx", "2.000", "2.000", "2.000", "2.000", "1,000"]  # no p95 and p99 of 60 calls
    assert compared == ["h.onnx", "2", "1.000x", "too", "noisy", "to", "say"]
    assert included[:6] == ["h.onnx", "2", "CPU", "fp16", "60", "3"]
    assert "1 thread, without copies between host and device, after warmup (processors " in found.out
    assert "1 blocks in random order (seed 7), each model loaded again for every block" in found.out
    assert "the time limit was reached: every comparison" in found.out
    assert max(map(len, found.out.partition("measured: ")[0].splitlines())) <= 80


def test_blocks_go_on_until_a_verdict(optkit: CommandLine, models: tuple[str, str], play: Play) -> None:
    play(*[2.0] * 100)
    found = optkit("bench", *models, "--batch", "2")
    assert cells(found.out, "h.onnx")[1] == ["h.onnx", "2", "1.000x", "1.000-1.000", "1.000-1.000", "no", "difference"]
    assert "10 blocks in random order" in found.out
    assert "the interval is narrow enough: every comparison" in found.out


def test_several_callers_and_the_knee_are_shown(optkit: CommandLine, models: tuple[str, str]) -> None:
    found = optkit("bench", "m.onnx", "--batch", "1,4,8", "--time-limit-s", "0.001", "--concurrency", "1,2")
    assert found.code == 0, found.err
    assert "several callers at once" in found.out
    assert re.search(r"m\.onnx: knee at batch \d, the smallest batch with at least 90% of the largest", found.out)


def test_one_that_cannot_run_is_named_with_its_reason(optkit: CommandLine, models: tuple[str, str]) -> None:
    import onnx

    broken = onnx.load("h.onnx")
    broken.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(broken, "h.onnx")
    Path("h.onnx.passport.json").unlink()
    found = optkit("bench", *models, *QUICK, "--dim", "batch=1:4:8", "--json")
    assert found.code == 0, found.err
    record = json.loads(found.out)
    assert [m["artifact"] for m in record["measurements"]] == ["m.onnx"]
    (missing,) = record["not_run"]
    assert missing["artifact"] == "h.onnx"
    assert "NoSuchOperator" in missing["reason"]
    shown = optkit("bench", *models, *QUICK, "--dim", "batch=1:4:8")
    assert "not run: h.onnx: " in shown.out


def test_nothing_that_can_run_is_an_error(optkit: CommandLine, models: tuple[str, str]) -> None:
    Path("m.onnx").with_suffix(".pt").write_bytes(b"")
    found = optkit("bench", "m.onnx", *QUICK, "--batch", "9")
    assert (found.code, found.out) == (2, "")
    assert found.err == "error: bench: batch 9; 'batch' is declared from 1 to 8\n"


def test_ctrl_c_shows_the_blocks_that_were_whole(optkit: CommandLine, models: tuple[str, str], play: Play) -> None:
    play(*[2.0] * 5, KeyboardInterrupt)
    found = optkit("bench", *models, "--batch", "2")
    assert found.code == 130
    assert "2 blocks in random order" in found.out
    assert "it was interrupted: every comparison" in found.out
    assert "interrupted: the numbers are those of the complete blocks" in found.out


def test_ctrl_c_in_a_run_keeps_them_in_the_record_and_measures_again_the_next_time(
    optkit: CommandLine, folder: Path, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(folder, steps=[TORCHSCRIPT, ONNX], bench=BENCH | {"max_blocks": 9, "min_blocks": 9})
    play(*[2.0] * 7, KeyboardInterrupt)
    found = optkit("run", "recipe.yaml", "-o", "out")
    assert found.code == 130
    assert f"interrupted: 2 complete blocks are stored in {folder}/out/bench.json" in found.err
    kept = BenchRecord.read(folder / "out" / "bench.json")
    assert kept.interrupted
    assert {len(m.blocks_p50_ms) for m in kept.measurements} == {2}
    monkeypatch.setattr(compare, "Instruments", Instruments)
    again = optkit("run", "recipe.yaml", "-o", "out")
    assert again.code == 0
    assert not BenchRecord.read(folder / "out" / "bench.json").interrupted


def test_a_self_test_compares_a_model_with_its_copy(optkit: CommandLine, models: tuple[str, str], play: Play) -> None:
    play(*[2.0] * 1000)
    found = optkit("bench", "m.onnx", "--self-test", "--trials", "4", "--json")
    assert found.code == 0, found.err
    record = json.loads(found.out)
    assert record["schema"] == "optkit/self-test/1"
    assert (record["artifact"], record["found"]["coverage"], record["found"]["false_verdicts"]) == ("m.onnx", 1.0, 0.0)
    assert [t["batch"] for t in record["found"]["trials"]] == [4] * 4  # opt
    shown = optkit("bench", "m.onnx", "--self-test", "--trials", "4")
    assert "m.onnx against a copy of itself, 4 comparisons" in shown.out
    assert "100% (40%-100%)" in shown.out


def test_a_self_test_that_is_wrong_too_often_is_a_negative_verdict(
    optkit: CommandLine, models: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks whose time grows with the path: a copy that lies elsewhere seems slower, each time."""

    def biased(artifact: object, feeds: object, settings: BenchSettings, instruments: Instruments) -> Turn:
        slow = "self-test" in str(artifact.path)  # type: ignore[attr-defined]
        return Turn("P", 1, 1, (Block(np.array([2.0 if slow else 1.0]), 0),))

    monkeypatch.setattr(compare, "_turn", biased)
    found = optkit("bench", "m.onnx", "--self-test", "--trials", "4", "--json")
    assert found.code == 1
    tested = json.loads(found.out)["found"]
    assert (tested["coverage"], tested["false_verdicts"]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--self-test", "--trials", "0"), "self-test: 0 trials; expected at least 1"),
        (("--concurrency", "0,2"), "--concurrency: 0, 2; every number must be at least 1"),
        (("--half-width", "0"), "--half-width: Input should be greater than 0"),
        (("--time-limit-s", "-1"), "--time-limit-s: Input should be greater than 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    optkit: CommandLine, models: tuple[str, str], options: tuple[str, ...], says: str
) -> None:
    found = optkit("bench", "m.onnx", *options)
    assert (found.code, found.out) == (2, "")
    assert found.err == f"error: {says}\n"


def test_explain_tells_of_every_artifact_why_it_won_or_lost(
    optkit: CommandLine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faster_as_onnx(artifact: object, feeds: object, settings: BenchSettings, instruments: Instruments) -> Turn:
        ms = 1.0 if str(artifact.path).endswith(".onnx") else 2.0  # type: ignore[attr-defined]
        return Turn("P", 1, 1, (Block(np.array([ms]), 0),))

    monkeypatch.setattr(compare, "_turn", faster_as_onnx)
    found = optkit("run", "recipe.yaml", "--explain")
    assert found.code == 0, found.err
    assert "export-onnx won: the fastest of 2 that passed every gate: 2.00x source (at batch 2)" in found.out
    assert "  export-torchscript: slower: 2.000x the time (95 % interval 2.000 to 2.000)" in found.out
    record = json.loads((folder / "build" / "tiny" / "run.json").read_text())
    assert [lost["artifact"] for lost in record["winner"]["lost"]] == ["export-torchscript"]

    budget = ("run", "recipe.yaml", "--explain", "--set")
    over = optkit(*budget, "gates.min_samples_per_s={2: 1500}")  # 2 samples in 1 or 2 ms
    assert over.code == 0, over.err
    assert "  export-torchscript: throughput at batch 2: 1,000.0 samples/s; at least 1500 is required" in over.out
    neither = optkit(*budget, "gates.min_samples_per_s=3000")
    assert neither.code == 1
    assert "no winner\n  export-torchscript: throughput at batch 2: 1,000.0 samples/s; at least 3000" in neither.out
    assert "  export-onnx: throughput at batch 2: 2,000.0 samples/s; at least 3000 is required" in neither.out
