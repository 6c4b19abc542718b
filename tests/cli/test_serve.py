"""`optkit smoke` and `optkit serve` as a user runs them, with servers that are dead, talk garbage or hang."""

import contextlib
import json
import socket
import threading
import time

import numpy as np
import pytest

from optkit.artifact.findings import BatchIndependence
from optkit.data import Samples
from optkit.serving import TorchServeServing, TritonServing, make_golden, package_torchserve, package_triton
from optkit.serving.torchserve.golden import archive_golden
from tests.support.project import command_line
from tests.support.repositories import Repository, write_good


@pytest.fixture
def cli(monkeypatch, capsys):
    yield from command_line(monkeypatch, capsys)


@pytest.fixture
def repository(onnx_linear, tmp_path):
    """The zoo's linear model with its golden samples."""
    golden = make_golden(onnx_linear, Samples(onnx_linear.inputs, onnx_linear.dims))
    settings = TritonServing(preferred_batch_sizes=(4,))
    proven = BatchIndependence(dim="batch")
    package_triton(onnx_linear, tmp_path, settings, name="linear", independence=proven, sample=None, golden=golden)
    return tmp_path


@contextlib.contextmanager
def answering(reply, trickle=None):
    """A server that says the same bytes to everybody, or nothing; `trickle` it sends again and again after that."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        ended = threading.Event()
        held = []

        def talk():
            while not ended.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    held.append(connection)
                    if reply is not None:
                        connection.sendall(reply)
                        while trickle and not ended.wait(0.05):
                            connection.sendall(trickle)
                        connection.close()

        thread = threading.Thread(target=talk)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            ended.set()
            thread.join()
            for connection in held:
                connection.close()


REPLIES = {
    "garbage": (b"no server of models\r\n\r\n", None),
    "hangs": (None, None),
    "closes": (b"", None),
    "trickles headers": (b"HTTP/1.1 200 OK\r\n", b"a"),
    "trickles a body": (b"HTTP/1.1 200 OK\r\n\r\n", b"a"),
    "an endless page": (b"HTTP/1.1 200 OK\r\n\r\n", b"<p>" * 10_000),
    "another status": (b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}", None),
}


@pytest.fixture
def archive(onnx_linear, tmp_path_factory):
    """The same model in a TorchServe archive."""
    samples = Samples(onnx_linear.inputs, onnx_linear.dims)
    golden = archive_golden(onnx_linear, samples, None)
    store = tmp_path_factory.mktemp("store")
    return package_torchserve(onnx_linear, store, TorchServeServing(), name="linear", golden=golden).path


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize("server", ["http", "grpc", "torchserve"])
def test_a_server_that_talks_garbage_hangs_or_closes(cli, repository, archive, server, reply):
    path, scheme = (archive, "http") if server == "torchserve" else (repository, server)
    with answering(*REPLIES[reply]) as address:
        started = time.monotonic()
        done = cli("smoke", path, "--url", f"{scheme}://{address}", "--limit-s", 1)
        took = time.monotonic() - started
    assert done.code == 2, done
    named = (
        ("no working TorchServe", "is not TorchServe")
        if server == "torchserve"
        else ("no working Triton server", "not live")
    )
    assert f"{scheme}://{address}" in done.err
    assert any(text in done.err for text in named), done.err
    assert took < 15  # of an endless answer, which has no end otherwise


@pytest.mark.parametrize("server", ["http", "grpc", "torchserve"])
def test_a_dead_server(cli, repository, archive, server):
    path, scheme = (archive, "http") if server == "torchserve" else (repository, server)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    done = cli("smoke", path, "--url", f"{scheme}://{address}", "--limit-s", 2)
    assert done.code == 2
    assert f"no working {'TorchServe' if server == 'torchserve' else 'Triton server'}" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "expected either --url of a running server, or --start"),
        (("--url", "http://x:1", "--start"), "expected either --url of a running server, or --start"),
        (("--url", "127.0.0.1:8000"), "expected http://host:port or grpc://host:port, without a path"),
        (("--url", "http://x:1/v2"), "without a path"),
    ],
)
def test_wrong_options(cli, repository, arguments, said):
    done = cli("smoke", repository, *arguments)
    assert (done.code, said in done.err) == (2, True), done.err


def test_a_repository_without_golden_samples(cli, tmp_path):
    write_good(tmp_path / "models")
    done = cli("smoke", tmp_path / "models", "--url", "http://127.0.0.1:1")
    assert done.code == 2
    assert "holds no golden samples; expected the samples that optkit package stores" in done.err


def test_damaged_golden_samples(cli, repository):
    (repository / "linear/golden/1.npz").write_bytes(b"PK damaged")
    done = cli("smoke", repository, "--url", "http://127.0.0.1:1")
    assert done.code == 2
    assert "1.npz: cannot be read as .npz (" in done.err


def test_without_the_extra_http_says_what_to_install(cli, repository, monkeypatch):
    monkeypatch.setattr("optkit.deps.installed", lambda module: False)
    done = cli("smoke", repository, "--url", "http://127.0.0.1:1")
    assert done.code == 2
    assert "pip install 'optkit[serving]'" in done.err


def test_smoke_starts_a_server_asks_it_and_compares(cli, repository, triton):
    done = cli("smoke", repository, "--start")
    assert done.code == 0, done.err
    assert "2 tested, 0 failed" in done.out
    golden = dict(np.load(repository / "linear/golden/1.npz"))
    golden["output/output"] = golden["output/output"] * 2
    np.savez(repository / "linear/golden/1.npz", **golden)
    wrong = cli("smoke", repository, "--start", "--json")
    record = json.loads(wrong.out)
    assert (wrong.code, record["schema"]) == (1, "optkit/smoke/1")
    assert all(replay["outputs"][0]["failure"] for replay in record["replays"])


def test_start_without_a_server(cli, repository, monkeypatch):
    monkeypatch.delenv("OPTKIT_TRITON", raising=False)
    monkeypatch.setenv("PATH", "")
    for command in ("smoke", "serve"):
        done = cli(command, repository, "--start")
        assert done.code == 2
        assert "no Triton server is installed" in done.err


def test_serve_prints_the_command(cli, tmp_path):
    repository = Repository(write_good(tmp_path / "my models"))
    done = cli("serve", repository.folder, "--http-port", 9000)
    assert done.code == 0
    assert done.out == (
        "docker run --rm -p 127.0.0.1:9000:8000 -p 127.0.0.1:8001:8001 -p 127.0.0.1:8002:8002 "
        f"--mount 'type=bind,source={repository.folder},target=/models,readonly' nvcr.io/nvidia/tritonserver:25.10-py3 "
        "tritonserver --model-repository=/models\n"
    )
    repository.edit("classifier", "KIND_CPU", "KIND_GPU")
    assert "--gpus all" in cli("serve", repository.folder).out
    repository.add("total", "response_cache { enable: true }")
    assert cli("serve", repository.folder).out.endswith(
        "--model-repository=/models --cache-config=local,size=268435456\n"
    )
    podman = json.loads(cli("serve", repository.folder, "--engine", "podman", "--json").out)
    assert podman["command"].startswith("podman run --rm --device nvidia.com/gpu=all ")


def test_serve_of_what_is_no_repository(cli, tmp_path):
    done = cli("serve", tmp_path / "gone")
    assert (done.code, "no such folder; expected a Triton model repository" in done.err) == (2, True)
