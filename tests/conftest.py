"""What all tests share: artifacts of the zoo, made once a session, and the reason why a GPU test is skipped."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from optkit import deps
from optkit.artifact import Artifact
from optkit.benchmark.machine import usable_cores
from optkit.choose import exporter
from optkit.choose.int8 import gain, types
from optkit.serving.triton.server import TritonInstall, TritonServer, find_triton
from optkit.stages import ExportOnnx
from tests.support.needs import need
from tests.support.served import SharedTriton
from tests.support.shared import Zoo, locked
from tests.support.zoo import Make

# A shell that starts the tests in the background ignores SIGINT, and nohup SIGHUP; the processes that are sent these would inherit it.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)

# Of a block, and of their number, where a choice is not what is tested.
BRIEF = {"block_s": 0.0, "block_calls": 3, "drop_s": 0.0, "min_blocks": 3, "max_blocks": 3}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_xdist_auto_num_workers() -> int:
    """How many workers `-n auto` means: more than cores, because a third of the time tests wait for servers and processes."""
    return usable_cores() * 3 // 2


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
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of a run have in common."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(autouse=True)
def _measuring(request: pytest.FixtureRequest, shared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run tests marked `measures` one at a time; in all others, the choice among files takes a few short blocks."""
    if request.node.get_closest_marker("measures"):
        with locked(shared_folder / "measures.lock"):
            yield
        return
    for module in (exporter, gain, types):
        monkeypatch.setattr(module, "measure", _brief(module.measure))
    yield


def _brief(measure: Callable[..., Any]) -> Callable[..., Any]:
    return lambda artifacts, samples, settings: measure(artifacts, samples, settings.model_copy(update=BRIEF))


@pytest.fixture(scope="session")
def make(shared_folder: Path) -> Make:
    """Return make(sample, *stages): the artifact at the end of that chain, made once for all workers. Do not change its files."""
    return Zoo(shared_folder / "zoo").make


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


@pytest.fixture(scope="session")
def serve(
    triton: TritonInstall, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Path], AbstractContextManager[TritonServer]]]:
    """Give serve(repository): the real Triton, one for all tests of a worker, with the models of that repository in the block."""
    shared = SharedTriton(triton, tmp_path_factory.mktemp("triton"))
    yield shared.serve
    shared.stop()


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
