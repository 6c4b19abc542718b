"""perf_analyzer as a driver: a stand-in with its options and its export, and everything that it may do wrong."""

import base64
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from optkit.errors import MissingDependency, RecipeError, RunnerError
from optkit.loadtest import LoadSettings, Source, load_test, parse_target
from optkit.loadtest.job import Job
from optkit.loadtest.perf_analyzer import choose, counters_of
from optkit.loadtest.values import Values
from tests.support.load_servers import in_thread, triton

STAND_IN = """\
#!{python}
import json, os, subprocess, sys, time

options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
json.dump(options, open({said!r}, "a")); print(file=open({said!r}, "a"))
inputs = json.load(open(options["--input-data"]))
json.dump(inputs, open({said!r} + ".inputs", "w"))
{does}
start = 1_795_000_000_000_000_000
requests = [
    {{"timestamp": start + i * 10_000_000, "response_timestamps": [start + i * 10_000_000 + 4_000_000], "request_inputs": {{}}}}
    for i in range(200)
]
export = {{"experiments": [{{"experiment": {{}}, "requests": requests, "window_boundaries": []}}], "version": "2.51.0"}}
assert not os.path.exists(options["--profile-export-file"])
json.dump(export, open(options["--profile-export-file"], "w"))
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Write a stand-in that does something first, and let OPTKIT_PERF_ANALYZER name it; returns what it was called with."""

    def write(does=""):
        path, said = tmp_path / "perf_analyzer", tmp_path / "said"
        path.write_text(STAND_IN.format(python=sys.executable, said=str(said), does=does))
        path.chmod(0o755)
        monkeypatch.setenv("OPTKIT_PERF_ANALYZER", str(path))
        return said

    return write


def counted(asked):
    """Return statistics that count a batch of two between two looks."""
    part = {"count": 2 * asked["stats"], "ns": 0}
    batch = {"batch_size": 2, "compute_infer": {"count": asked["stats"], "ns": asked["stats"] * 3_000_000}}
    return {
        "inference_count": 2 * asked["stats"],
        "execution_count": asked["stats"],
        "inference_stats": {"success": part},
        "batch_stats": [batch],
    }


def measured(server, **fields):
    given = {"concurrency": (1, 4), "warmup_s": 0.5, "duration_s": 1.0, "limit_s": 30} | fields
    return load_test(parse_target(f"http://127.0.0.1:{server.port}", "m"), LoadSettings(**given), Source())


def test_its_export_becomes_the_same_record(program):
    said = program()
    with in_thread(triton(stats=counted)) as server:
        record = measured(server, batch=2, tool="perf-analyzer")
        calls = [json.loads(line) for line in said.read_text().splitlines()]
        port = server.port
    assert (record.tool, record.tool_reason, record.failures) == ("perf-analyzer", "set by --tool", ())
    for call, point, callers in zip(calls, record.points, (1, 4), strict=True):
        assert (call["-m"], call["-u"], call["-i"], call["-b"]) == ("m", f"127.0.0.1:{port}", "http", "2")
        assert (call["-p"], call["-r"], call["--concurrency-range"]) == ("500", "3", f"{callers}:{callers}:1")
        assert (point.concurrency, point.latency_from) == (callers, "sent")
        assert (point.warmup, point.sent, point.answered) == (50, 150, 150)  # one in 10 ms, of which 0.5 s are dropped
        assert point.mean_ms == pytest.approx(4, abs=0.01)
        assert point.duration_s == pytest.approx(1.494, abs=0.001)
        assert point.samples_per_s == pytest.approx(2 * 150 / 1.494, rel=0.001)
        assert (point.p90_ms, point.p99_ms) == (pytest.approx(4, abs=0.01), None)  # 150 do not support a p99
        assert point.client_late_mean_ms is None
        assert (point.server.executions, point.server.mean_batch, point.server.includes_warmup) == (1, 2, True)
    inputs = json.loads(said.with_suffix(".inputs").read_text())["data"]
    assert len(inputs) == 32  # sixteen requests of two samples, one by one
    assert inputs[0]["x"]["shape"] == [2]
    assert len(base64.b64decode(inputs[0]["x"]["content"]["b64"])) == 8


def test_auto_takes_it_where_it_can_count_what_is_asked(program, monkeypatch):
    program()
    target = parse_target("http://127.0.0.1:1", "m")

    def chosen(elements=2, url=None, **fields):
        values = Values(({"x": np.zeros((1, elements), np.float32)},), "real samples")
        settings = LoadSettings(**({"concurrency": (1,)} | fields))
        return choose(Job(parse_target(url) if url else target, settings, (b"",), values, server_batches=True))

    assert chosen()[1].startswith("found at ")
    assert chosen(tool="asyncio") == (None, "set by --tool")
    assert chosen(rate=(5.0,)) == (
        None,
        "perf_analyzer measures latency from the time of sending, not from the scheduled time",
    )
    assert chosen(rate=(5.0,), tool="perf-analyzer")[0] is not None
    assert chosen(elements=20_000) == (
        None,
        "perf_analyzer would export 20000 elements for each request, more than 16384",
    )
    with pytest.raises(RecipeError, match=r"--tool perf-analyzer: perf_analyzer would export .* Use --tool asyncio"):
        chosen(elements=20_000, tool="perf-analyzer")
    torchserve = "http://127.0.0.1:1/predictions/m"
    assert chosen(url=torchserve) == (None, "perf_analyzer supports Triton only")
    with pytest.raises(RecipeError, match="perf_analyzer supports Triton only"):
        chosen(url=torchserve, tool="perf-analyzer")
    monkeypatch.setenv("OPTKIT_PERF_ANALYZER", "/nowhere/perf_analyzer")
    with pytest.raises(MissingDependency, match="OPTKIT_PERF_ANALYZER=/nowhere/perf_analyzer: no such program"):
        chosen()
    monkeypatch.delenv("OPTKIT_PERF_ANALYZER")
    monkeypatch.setenv("PATH", "/nowhere")
    assert chosen() == (None, "perf_analyzer is not installed")
    with pytest.raises(
        MissingDependency, match=r"perf_analyzer is not on the PATH.* Use --tool asyncio, or install perf_analyzer"
    ):
        chosen(tool="perf-analyzer")


def test_rates_are_counted_from_the_sending_and_a_note_says_so(program):
    said = program()
    with in_thread(triton(stats=counted)) as server:
        record = measured(server, concurrency=(), rate=(50.0,), tool="perf-analyzer")
    assert json.loads(said.read_text())["--request-rate-range"] == "50:50:1"
    assert record.points[0].latency_from == "sent"
    assert any("perf_analyzer measures latency from the time of sending" in note for note in record.notes)


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (
            "print('error: no such model'); sys.exit(99)",
            "perf_analyzer at concurrency 1: ended with exit code 99: error: no such model",
        ),
        ("sys.exit(0)", "its export cannot be read"),
        ("open(options['--profile-export-file'], 'w').write('{'); sys.exit(0)", "its export cannot be read"),
        ("open(options['--profile-export-file'], 'w').write('[]'); sys.exit(0)", "its export cannot be read"),
        ("os.kill(os.getpid(), 11)", "was killed by SIGSEGV: no output"),
    ],
    ids=["fails", "no export", "half an export", "another export", "crashes"],
)
def test_what_it_may_do_wrong(program, does, said):
    program(does)
    with in_thread(triton(stats=counted)) as server, pytest.raises(RunnerError, match=said):
        measured(server, tool="perf-analyzer")


def test_one_that_does_not_end_is_stopped_with_its_children(program, monkeypatch, tmp_path):
    monkeypatch.setattr("optkit.loadtest.perf_analyzer._START_S", 0.0)
    pid = tmp_path / "pid"
    program(
        f"child = subprocess.Popen(['sleep', '600']); open({str(pid)!r}, 'w').write(str(child.pid)); time.sleep(600)"
    )
    with in_thread(triton(stats=counted)) as server, pytest.raises(RunnerError, match="did not end within 8 s"):
        measured(server, tool="perf-analyzer", warmup_s=0.5, duration_s=0.5, limit_s=6)
    deadline = time.monotonic() + 10
    while alive(int(pid.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(int(pid.read_text()))


def alive(pid):
    """Say whether a process runs; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_later_failure_keeps_what_was_measured(program):
    program("if options['--concurrency-range'] == '4:4:1': sys.exit(3)")
    with in_thread(triton(stats=counted)) as server:
        record = measured(server, tool="perf-analyzer")
    assert [point.concurrency for point in record.points] == [1]
    assert "perf_analyzer at concurrency 4: ended with exit code 3" in record.stopped
    assert record.failures == (record.stopped,)


def test_requests_without_an_answer_are_failures():
    requests = [
        {"timestamp": i * 10**9, "response_timestamps": [i * 10**9 + 10**6] if i % 2 else []} for i in range(10)
    ]
    counters = counters_of({"experiments": [{"requests": requests}]}, 2.0)
    assert (counters.warmup, counters.sent, counters.failed, len(counters.latencies_s)) == (2, 8, 4, 4)
    with pytest.raises(RunnerError, match=r"no request got a response; expected at least one. Raise --duration-s"):
        counters_of({"experiments": [{"requests": []}]}, 0)
