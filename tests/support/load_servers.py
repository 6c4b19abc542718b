"""Tiny servers in the test's own event loop or thread, with answers and faults that are known."""

import asyncio
import contextlib
import json
import threading

import numpy as np

OUTPUT = np.arange(3, dtype=np.float32)


def http_answer(status=200, body=b"{}", headers=()):
    """Return an answer of HTTP/1.1."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Server:
    """Reads whole requests, and answers each with what `reply(path, number)` gives: bytes, or None for no answer."""

    def __init__(self, reply):
        self.reply = reply
        self.paths = []
        self.connections = 0
        self.port = 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._writers = set()
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0.01)

    async def _talk(self, reader, writer):
        self.connections += 1
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    (
                        int(line.split(":")[1])
                        for line in head.lower().split("\r\n")
                        if line.startswith("content-length")
                    ),
                    0,
                )
                await reader.readexactly(length)
                path = head.split(" ")[1]
                self.paths.append(path)
                answer = self.reply(path, len(self.paths) - 1)
                if asyncio.iscoroutine(answer):
                    answer = await answer
                if answer is None:
                    continue
                writer.write(answer)
                await writer.drain()
        self._writers.discard(writer)
        writer.transport.abort()


@contextlib.contextmanager
def in_thread(reply):
    """Run a server in a thread; yields it, with its port."""
    ready, ended = threading.Event(), None
    server, loop = Server(reply), asyncio.new_event_loop()

    async def live():
        nonlocal ended
        ended = asyncio.Event()
        async with server:
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(live()))
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
        loop.close()


def triton(infer=None, *, dynamic=True, stats=None):
    """Return the reply of a Triton with one model `m` of x[-1, 2] -> y; `infer(number)` gives the answers to inferences."""
    head = json.dumps(
        {
            "outputs": [
                {"name": "y", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": OUTPUT.nbytes}}
            ]
        }
    ).encode()
    good = http_answer(body=head + OUTPUT.tobytes())
    config = {"max_batch_size": 8, "instance_group": [{"count": 1}]}
    if dynamic:
        config["dynamic_batching"] = {"preferred_batch_size": [8], "max_queue_delay_microseconds": 100}
    fixed = {
        "/v2/repository/index": [{"name": "m", "state": "READY"}, {"name": "old", "state": "UNAVAILABLE"}],
        "/v2/models/m": {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]},
        "/v2/models/m/config": config,
    }
    asked = {"infer": 0, "stats": 0}

    def reply(path, _number):
        if path in fixed:
            return http_answer(body=json.dumps(fixed[path]).encode())
        if path == "/v2/models/m/stats":
            asked["stats"] += 1
            return http_answer(body=json.dumps({"model_stats": [stats(asked) if stats else {}]}).encode())
        if path == "/v2/models/m/infer":
            asked["infer"] += 1
            return infer(asked["infer"] - 1, good) if infer else good
        return http_answer(404, json.dumps({"error": f"no such path {path}"}).encode())

    return reply
