"""The HTTP client of load tests: whole responses, responses in pieces and in chunks, and every bad response."""

import asyncio
import time

import pytest

from optkit.loadtest.connection import RequestFailed
from optkit.loadtest.http_connection import HttpConnection, HttpConnector
from optkit.loadtest.job import run
from tests.support.load_servers import Server, http_answer

REQUEST = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def responses(*replies):
    """Send one request for each reply on one connection, and return the bodies or the reasons of failures."""

    async def talk():
        found = []
        async with Server(lambda _path, number: replies[number]) as server:
            connection = await HttpConnector("127.0.0.1", server.port).open()
            for _ in replies:
                try:
                    found.append(await connection.request(REQUEST))
                except RequestFailed as e:
                    found.append(str(e))
            connection.close()
            assert server.connections == 1
        return found

    return run(talk())


class Transport(asyncio.Transport):
    """Sends nothing; remembers whether it was closed."""

    def __init__(self):
        super().__init__()
        self.aborted = False

    def write(self, data):
        pass

    def is_closing(self):
        return self.aborted

    def abort(self):
        self.aborted = True


def response_of(parts):
    """Send a request and receive its response in the given parts; return the body and whether the connection is closed."""

    async def talk():
        connection, transport = HttpConnection(), Transport()
        connection.connection_made(transport)
        waiting = asyncio.create_task(connection.request(REQUEST))
        await asyncio.sleep(0)
        for part in parts:
            assert not waiting.done()
            connection.data_received(part)
        return await waiting, connection.closed

    return run(talk())


def test_responses_come_one_after_another_on_one_connection():
    assert responses(http_answer(body=b"one"), http_answer(body=b""), http_answer(body=b"x" * 200_000)) == [
        b"one",
        b"",
        b"x" * 200_000,
    ]


def test_a_status_other_than_200_fails_with_the_servers_message_and_the_connection_stays_open():
    said = http_answer(503, b'{"error": "queue\\n full"}')
    other = http_answer(400, b'{"code": 400, "message": "bad"}')
    assert responses(said, other, http_answer(500, b""), http_answer(429, b"slow down"), http_answer(body=b"ok")) == [
        "status 503: queue full",
        "status 400: bad",
        "status 500",
        "status 429: slow down",
        b"ok",
    ]


def test_chunks():
    chunked = CHUNKED + b"3\r\nabc\r\n2;x=1\r\nde\r\n0\r\n\r\n"
    assert responses(chunked, http_answer(body=b"next")) == [b"abcde", b"next"]
    with_trailer = CHUNKED + b"A\r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\n"
    assert responses(with_trailer, http_answer(body=b"next")) == [b"0123456789", b"next"]


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize(
    "response",
    [http_answer(body=b"abcde"), CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"],
    ids=["length", "chunks"],
)
def test_a_response_in_small_pieces(response, size):
    pieces = [response[start : start + size] for start in range(0, len(response), size)]
    assert response_of(pieces) == (b"abcde", False)


def test_the_time_to_read_chunks_grows_with_the_body_and_not_with_its_square():
    def seconds(chunks):
        parts = [CHUNKED, *[b"400\r\n" + b"x" * 1024 + b"\r\n"] * chunks, b"0\r\n\r\n"]
        start = time.process_time()
        body, _ = response_of(parts)
        assert len(body) == 1024 * chunks
        return time.process_time() - start

    seconds(100)
    assert seconds(16_000) < 40 * min(
        seconds(2000) for _ in range(3)
    )  # 8 times as many chunks; a square takes 64 times as long


def test_an_interim_response_is_skipped():
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert responses(interim + http_answer(body=b"ok"), http_answer(body=b"next")) == [b"ok", b"next"]
    assert response_of([interim, http_answer(body=b"ok")]) == (b"ok", False)


def test_bytes_that_belong_to_no_request_close_the_connection():
    two = http_answer(body=b"one") + http_answer(body=b"two")
    assert responses(two) == ["the server sent more than one response to one request"]

    async def talk():
        connection, transport = HttpConnection(), Transport()
        connection.connection_made(transport)
        connection.data_received(b"HTTP/1.1 408 Timeout\r\n\r\n")
        return connection.closed

    assert run(talk())


def test_a_body_that_ends_with_the_connection():
    async def once(reader, writer):
        await reader.readexactly(len(REQUEST))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall ")
        await writer.drain()
        writer.write(b"of it")
        await writer.drain()
        writer.close()

    async def talk():
        async with asyncio.timeout(10):
            server = await asyncio.start_server(once, "127.0.0.1", 0)
            connection = await HttpConnector("127.0.0.1", server.sockets[0].getsockname()[1]).open()
            body = await connection.request(REQUEST)
            assert connection.closed
            server.close()
            return body

    assert run(talk()) == b"all of it"


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "the response is not HTTP (Expected HTTP/, RTSP/ or ICE/): b'SSH-2.0-OpenSSH"),
        (b"HTTP/1.1 maybe\r\n\r\n", "the response is not HTTP (Invalid status code): b'HTTP/1.1 maybe"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            "the response is not HTTP (Invalid character in Content-Length): b'HTTP/1.1 200 OK",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "the response is larger than 256 MiB"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "the head of the response is longer than 64 KiB"),
        (CHUNKED + b"zz\r\nabc", "the response is not HTTP (Invalid character in chunk size)"),
    ],
)
def test_a_response_that_cannot_be_read(response, reason):
    [found] = responses(response)
    assert found.startswith(reason)


def test_the_end_of_the_connection_before_the_response():
    async def talk():
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connection = await HttpConnector("127.0.0.1", port).open()
        with pytest.raises(RequestFailed, match="the server closed the connection"):
            await connection.request(REQUEST)
        with pytest.raises(RequestFailed, match="the server closed the connection"):
            await connection.request(REQUEST)
        assert connection.closed
        server.close()
        with pytest.raises(RequestFailed, match=r"cannot connect: .*refused"):
            await HttpConnector("127.0.0.1", port).open()

    run(talk())


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"HTTP/1.1 200 OK\r\nContent-"])
def test_the_end_of_the_connection_within_a_response(start):
    async def talk():
        connection, transport = HttpConnection(), Transport()
        connection.connection_made(transport)
        waiting = asyncio.create_task(connection.request(REQUEST))
        await asyncio.sleep(0)
        connection.data_received(start)
        connection.connection_lost(None)
        with pytest.raises(RequestFailed, match="the server closed the connection"):
            await waiting

    run(talk())


def test_the_response_decides_whether_the_connection_stays_open():
    def closed(head):
        return response_of([head + b"\r\nContent-Length: 0\r\n\r\n"])[1]

    assert not closed(b"HTTP/1.1 200 OK\r\nConnection: keep-alive")
    assert not closed(b"HTTP/1.1 200 OK")
    assert closed(b"HTTP/1.1 200 OK\r\nConnection: Close")
    assert closed(b"HTTP/1.0 200 OK")
