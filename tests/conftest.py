"""What all tests share: artifacts of the zoo, made once a session, and the reason why a GPU test is skipped."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from optkit import deps
from optkit.artifact import Artifact
from optkit.serving.triton.server import TritonInstall, find_triton
from optkit.stages import ExportOnnx, Stage
from tests.support import zoo
from tests.support.needs import need
from tests.support.zoo import Make

# Where a shell started the tests in the background it has SIGINT ignored, and so would the processes whose Ctrl-C is tested.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu:
            item.add_marker(pytest.mark.skip(reason="torch finds no NVIDIA GPU here"))


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return make(sample, *stages): the artifact at the end of that chain, made once a session. Do not change its files."""
    made: dict[str, Artifact] = {}

    def artifact(sample: str, *stages: Stage) -> Artifact:
        key = f"{sample} {stages}"
        if key not in made:
            folder = tmp_path_factory.mktemp(sample)
            if stages:
                made[key] = stages[-1].run(artifact(sample, *stages[:-1]), folder)
            else:
                made[key] = zoo.SAMPLES[sample].source(folder)
        return made[key]

    return artifact


@pytest.fixture(scope="session")
def onnx_linear(make: Make) -> Artifact:
    """Return the zoo's linear model as an ONNX file. Do not change it."""
    return make("linear", ExportOnnx(exporter="torchscript", opset=17))


@pytest.fixture
def onnx_copy(onnx_linear: Artifact, tmp_path: Path) -> Path:
    """Return a copy of that file, free to be damaged."""
    copy = tmp_path / "model.onnx"
    copy.write_bytes(onnx_linear.path.read_bytes())
    return copy


@pytest.fixture(scope="session")
def triton() -> TritonInstall:
    """The real Triton server, in an environment of its own."""
    need(
        os.environ.get("OPTKIT_TRITON"),
        "no Triton server: run tests/support/servers/install_triton.sh FOLDER, set OPTKIT_TRITON",
    )
    return find_triton()


@pytest.fixture
def speaks() -> Iterator[Callable[[bytes | None], str]]:
    """Return speaks(bytes): the address of a server that answers every connection with them and closes it; None says nothing."""
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def starting(answer: bytes | None) -> str:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.1)

        def serve() -> None:
            held: list[socket.socket] = []
            while not stop.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                if answer is None:
                    held.append(connection)
                    continue
                with connection:
                    connection.settimeout(5)
                    connection.recv(1 << 16)
                    connection.sendall(answer)
            for connection in [*held, listener]:
                connection.close()

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield starting
    stop.set()
    for thread in threads:
        thread.join()


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def rtx() -> None:
    """Skip where TensorRT-RTX, which builds without a GPU, is not installed."""
    there = deps.installed("tensorrt_rtx") or deps.installed("tensorrt_rtx_bindings")
    need(there, "tensorrt-rtx is not installed: pip install 'optkit[tensorrt-rtx]'")
