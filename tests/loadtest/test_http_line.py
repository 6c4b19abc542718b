"""The HTTP client of load tests: answers whole, in pieces and in chunks, and everything that is no good answer."""

import asyncio

import pytest

from optkit.loadtest.connection import RequestFailed
from optkit.loadtest.http_connection import HttpLines, parse_head, unchunked
from optkit.loadtest.job import run
from tests.support.load_servers import Server, http_answer

REQUEST = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"


def asked(*replies):
    """Ask by one line as often as there are replies, and return the answers or the reasons of failures."""

    async def talk():
        found = []
        async with Server(lambda _path, number: replies[number]) as server:
            lines = HttpLines("127.0.0.1", server.port)
            line = await lines.open()
            for _ in replies:
                try:
                    found.append(await line.ask(REQUEST))
                except RequestFailed as e:
                    found.append(str(e))
            line.close()
            assert server.connections == 1
        return found

    return run(talk())


def test_answers_come_one_after_another_on_one_connection():
    assert asked(http_answer(body=b"one"), http_answer(body=b""), http_answer(body=b"x" * 200_000)) == [
        b"one",
        b"",
        b"x" * 200_000,
    ]


def test_a_status_other_than_200_fails_with_the_servers_words_and_the_line_goes_on():
    said = http_answer(503, b'{"error": "queue\\n full"}')
    other = http_answer(400, b'{"code": 400, "message": "bad"}')
    assert asked(said, other, http_answer(500, b""), http_answer(429, b"slow down"), http_answer(body=b"ok")) == [
        "status 503: queue full",
        "status 400: bad",
        "status 500",
        "status 429: slow down",
        b"ok",
    ]


def test_chunks():
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=1\r\nde\r\n0\r\n\r\n"
    assert asked(chunked, http_answer(body=b"next")) == [b"abcde", b"next"]
    for cut in range(len(b"3\r\nabc\r\n0\r\n\r\n")):
        assert unchunked(b"3\r\nabc\r\n0\r\n\r\n"[:cut]) is None
    with pytest.raises(RequestFailed, match="chunks cannot be read"):
        unchunked(b"zz\r\nabc")


def test_a_body_that_ends_with_the_connection():
    async def reply():
        return b"HTTP/1.1 200 OK\r\n\r\nall of it"

    async def talk():
        async with asyncio.timeout(10):
            server = await asyncio.start_server(once, "127.0.0.1", 0)
            lines = HttpLines("127.0.0.1", server.sockets[0].getsockname()[1])
            line = await lines.open()
            body = await line.ask(REQUEST)
            assert line.closed
            server.close()
            return body

    async def once(reader, writer):
        await reader.readexactly(len(REQUEST))
        writer.write(await reply())
        await writer.drain()
        writer.close()

    assert run(talk()) == b"all of it"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "the answer is no HTTP: b'SSH-2.0-OpenSSH"),
        (b"HTTP/1.1 maybe\r\n\r\n", "the answer is no HTTP: b'HTTP/1.1 maybe'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "the answer's Content-Length is many"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "the answer's Content-Length is 99999999999"),
        (b"HTTP/1." + b"x" * 70_000, "the answer is no HTTP: b'HTTP/1.xx"),
    ],
)
def test_garbage(answer, reason):
    [found] = asked(answer)
    assert found.startswith(reason)


def test_the_end_of_the_connection_before_the_answer():
    async def talk():
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        line = await HttpLines("127.0.0.1", server.sockets[0].getsockname()[1]).open()
        with pytest.raises(RequestFailed, match="the server closed the connection"):
            await line.ask(REQUEST)
        with pytest.raises(RequestFailed, match="the server closed the connection"):
            await line.ask(REQUEST)
        assert line.closed
        server.close()
        with pytest.raises(RequestFailed, match=r"cannot connect: .*refused"):
            await HttpLines("127.0.0.1", server.sockets[0].getsockname()[1] if server.sockets else 1).open()

    run(talk())


def test_a_head_says_whether_the_connection_stays():
    assert not parse_head(b"HTTP/1.1 200 OK\r\nConnection: keep-alive").close
    assert parse_head(b"HTTP/1.1 200 OK\r\nConnection: Close").close
    assert parse_head(b"HTTP/1.0 200 OK").close
