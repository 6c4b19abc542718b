"""Generated clients, loaded from where they lie, as a user's program would."""

import importlib
import socket
import sys
import threading

import pytest


@pytest.fixture
def load():
    """Return load(folder): the package of a client, imported anew."""
    loaded = []

    def loading(folder):
        name = folder.name
        sys.path.insert(0, str(folder.parent))
        try:
            for known in [known for known in sys.modules if known == name or known.startswith(f"{name}.")]:
                del sys.modules[known]
            loaded.append(name)
            return importlib.import_module(name)
        finally:
            sys.path.remove(str(folder.parent))

    yield loading
    for name in loaded:
        for known in [known for known in sys.modules if known == name or known.startswith(f"{name}.")]:
            del sys.modules[known]


@pytest.fixture
def speaks():
    """Return speaks(bytes): the address of a server that answers every connection with them and closes it; None says nothing."""
    stop = threading.Event()
    threads = []

    def starting(answer):
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.1)

        def serve():
            held = []
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
def nobody():
    """An address on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"
