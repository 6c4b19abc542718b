"""`optkit loadtest` as a user runs it, on servers that work, fail, hang, talk garbage or die."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import jsonschema
import pytest

from optkit.loadtest import LoadRecord
from tests.support.load_servers import http_answer, in_thread, triton

SHORT = ("--duration-s", 0.3, "--warmup-s", 0.1, "--limit-s", 20, "--tool", "asyncio")


def counted(asked):
    """Return statistics of lone executions of 3 ms, one for each inference."""
    part = {"count": asked["infer"], "ns": asked["infer"] * 10**6}
    batch = {"batch_size": 1, "compute_infer": {"count": asked["infer"], "ns": asked["infer"] * 3 * 10**6}}
    counts = {"inference_count": asked["infer"], "execution_count": asked["infer"]}
    return counts | {"inference_stats": {"success": part, "queue": part}, "batch_stats": [batch]}


def test_a_sweep_of_callers_and_rates(optkit):
    with in_thread(triton(stats=counted)) as server:
        done = optkit("loadtest", f"http://127.0.0.1:{server.port}", "--concurrency", "1,2,4", "--rate", "20", *SHORT)
    assert done.code == 0, done.err
    assert "m at http://127.0.0.1" in done.out
    for text in ("1 callers", "4 callers", "20/s", "knee: concurrency", "poisson arrivals", "data: seeded random"):
        assert text in done.out
    assert "note: the requests hold random values" in done.out
    assert "note: no advice: " in done.out  # one size of batch only


def test_json_is_the_record_of_the_schema(optkit, tmp_path):
    with in_thread(triton(stats=counted)) as server:
        done = optkit("loadtest", f"http://127.0.0.1:{server.port}", "--concurrency", 2, *SHORT, "--json")
    (tmp_path / "record.json").write_text(done.out)
    record = LoadRecord.read(tmp_path / "record.json")
    jsonschema.validate(json.loads(done.out), json.loads(optkit("schema", "loadtest").out))
    [point] = record.points
    assert (record.tool, record.model, record.batching.dynamic) == ("asyncio", "m", True)
    assert point.sent == point.answered > 0
    assert point.server.batches[0].execution_ms == pytest.approx(3)
    assert point.warmup > 0
    assert point.client_cpu_share > 0
    assert point.client_late_mean_ms is not None


def test_failed_requests_are_a_negative_verdict(optkit):
    def infer(number, good):
        return http_answer(503, b'{"error": "queue full"}') if number % 3 == 2 else good

    with in_thread(triton(infer, stats=counted)) as server:
        done = optkit("loadtest", f"http://127.0.0.1:{server.port}", "--concurrency", 2, *SHORT, "--json")
    [point] = json.loads(done.out)["points"]
    assert done.code == 1
    assert "failed: concurrency 2: " in done.err
    assert point["failures"] == {"status 503: queue full": point["failed"]}
    assert point["sent"] == point["answered"] + point["failed"]


def test_a_server_that_dies_ends_the_sweep_with_what_was_measured(optkit):
    """It hangs up from the fifth request on: no load after the first one is tried."""

    def infer(number, good):
        return good if number < 5 else b"HTTP/1.1 500\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

    with in_thread(triton(infer)) as server:
        url = f"http://127.0.0.1:{server.port}"
        done = optkit("loadtest", url, "--concurrency", "8,16", *SHORT[2:], "--duration-s", 60, "--json")
    record = json.loads(done.out)
    assert done.code == 1
    assert len(record["points"]) == 1
    assert record["stopped"] == "concurrency 8: the server stopped responding, so the sweep ended"
    assert record["points"][0]["failures"].keys() == {"status 500"}


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (lambda _p, _n: b"no server of models\r\n\r\n", "no working Triton server: the response is not HTTP"),
        (lambda _p, _n: None, "no working Triton server: no response within 2 s"),
    ],
    ids=["garbage", "hangs"],
)
def test_a_server_that_talks_garbage_or_hangs(optkit, reply, said):
    with in_thread(reply) as server:
        started = time.monotonic()
        done = optkit("loadtest", f"http://127.0.0.1:{server.port}", "--model", "m", "--limit-s", 2)
    assert (done.code, said in done.err) == (2, True), done.err
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_dead_server(optkit, scheme):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = optkit("loadtest", f"{scheme}://127.0.0.1:{port}", "--model", "m", "--limit-s", 5)
    assert done.code == 2
    assert "model 'm': no working Triton server" in done.err
    dead = optkit("loadtest", f"http://127.0.0.1:{port}/predictions/m", "--input", "x:float32[batch,2]", "--limit-s", 5)
    assert dead.code == 2
    assert "the first request: cannot connect: Connection refused" in dead.err


def test_by_grpc_a_server_that_hangs(optkit):
    with in_thread(lambda _p, _n: None) as server:
        done = optkit("loadtest", f"grpc://127.0.0.1:{server.port}", "--model", "m", "--limit-s", 2)
    assert done.code == 2
    assert "no working Triton server" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--concurrency", "0"), "--concurrency"),
        (("--concurrency", "300"), "less than or equal to 256"),
        (("--concurrency", "many"), "--concurrency many: expected numbers separated by commas"),
        (("--rate", "fast"), "--rate fast: expected numbers separated by commas"),
        (("--rate", "-1"), "--rate"),
        (("--rate", "nan"), "--rate"),
        (("--rate", "1000", "--duration-s", "999"), "expected at most max_requests 200000"),
        (("--tool", "ab"), "--tool"),
        (("--duration-s", "1e9"), "--duration-s"),
        (("--body", "gone.json"), "gone.json: cannot be read as a request body (no such file)"),
        (("--against", "gone.json"), "gone.json"),
        (("--token", "two\nlines"), "--token: contains invalid characters"),
        (("--version", "1/../2"), "no working Triton server"),
    ],
)
def test_wrong_options(optkit, arguments, said):
    done = optkit("loadtest", "http://127.0.0.1:1", *arguments)
    assert (done.code, said in done.err) == (2, True), done.err


def test_torchserve_gets_the_token_and_a_body_as_it_is(optkit, tmp_path, monkeypatch):
    (tmp_path / "image.png").write_bytes(b"picture")
    with in_thread(lambda _path, _n: http_answer(body=b"[1]")) as server:
        url = f"http://127.0.0.1:{server.port}/predictions/m"
        body = ("--body", tmp_path / "image.png", "--content-type", "image/png")
        done = optkit("loadtest", url, *body, "--token", "k", "--concurrency", 1, *SHORT, "--json")
        assert set(server.paths) == {"/predictions/m"}  # nothing else is asked of it
    record = json.loads(done.out)
    assert (done.code, record["server"], record["points"][0]["server"]) == (0, "torchserve", None)
    assert record["data"] == "given request body"
    assert "k" not in record["notes"]
    assert "Bearer" not in done.out + done.err


def interrupted(command, ready):
    """Start a command, press Ctrl-C when it is ready, and return its exit code, record and complaints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "optkit", "loadtest", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        deadline = time.monotonic() + 120
        while not ready() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    record = json.loads(out)
    assert record["interrupted"]
    return record


def test_ctrl_c_leaves_what_was_measured():
    with in_thread(triton(stats=counted)) as server:
        command = [f"http://127.0.0.1:{server.port}", "--json", "--concurrency", "2,4", "--tool", "asyncio"]
        record = interrupted([*command, "--warmup-s", 0, "--duration-s", 600], lambda: len(server.paths) > 200)
    [point] = record["points"]
    assert point["interrupted"]
    assert point["answered"] == point["sent"] > 100
    assert 0 < point["duration_s"] < 600


PERF_ANALYZER = """\
#!{python}
import json, os, sys, time
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if options["--concurrency-range"] == "2:2:1":
    open({pid!r}, "w").write(str(os.getpid()))
    time.sleep(600)
requests = [{{"timestamp": 10**18 + i * 10**7, "response_timestamps": [10**18 + i * 10**7 + 10**6]}} for i in range(99)]
json.dump({{"experiments": [{{"requests": requests}}]}}, open(options["--profile-export-file"], "w"))
"""


def test_ctrl_c_ends_perf_analyzer_too(tmp_path, monkeypatch):
    pid, program = tmp_path / "pid", tmp_path / "perf_analyzer"
    program.write_text(PERF_ANALYZER.format(python=sys.executable, pid=str(pid)))
    program.chmod(0o755)
    monkeypatch.setenv("OPTKIT_PERF_ANALYZER", str(program))
    with in_thread(triton(stats=counted)) as server:
        command = [f"http://127.0.0.1:{server.port}", "--json", "--concurrency", "1,2"]
        record = interrupted([*command, "--warmup-s", 0], lambda: pid.is_file() and pid.read_text())
    assert [point["concurrency"] for point in record["points"]] == [1]  # the one that is whole
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
