"""The public port against clients that are slow, rude, early or gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.client import MAX_HEAD, Client, Request
from gateway.reply import Reply
from gateway.server import Server, listening

LIMIT = 10_000
CLOSE = b"connection: close"


class Desk:
    """Answers with what it was asked; `/stream` never ends, `/wait` waits for `go`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes, int, bool]] = []
        self.cancelled = asyncio.Event()
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.written = 0

    async def __call__(self, request: Request, client: Client) -> None:
        self.asked.append((request.method, request.path, len(request.body), request.too_large))
        self.begun.set()
        reply = Reply(client, "r")
        try:
            if request.path == b"/stream":
                while True:
                    reply.part(b"x" * 65_536)
                    self.written += 65_536
                    await client.drained()
                    await asyncio.sleep(0)
            if request.path == b"/wait":
                await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        reply.whole(request.path + b"|" + request.body[:100])


@asynccontextmanager
async def serving(**timeouts: float) -> AsyncIterator[tuple[Desk, int, Server, Any]]:
    desk = Desk()
    server = Server(desk, LIMIT, timeouts.get("request", 5.0), timeouts.get("stall", 5.0))
    async with listening(server, "127.0.0.1", 0) as stop:
        yield desk, server.port, server, stop


async def talk(port: int, *sent: bytes) -> bytes:
    """All that comes back until the server closes, or half a second after its last word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in sent:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.001)
    got = b""
    try:
        while data := await asyncio.wait_for(reader.read(65_536), 0.5):
            got += data
    except (TimeoutError, ConnectionError):
        pass
    writer.close()
    return got


def answers(got: bytes) -> list[tuple[int, bytes]]:
    """Parsed by h11, which is stricter than any client."""
    found = []
    connection = h11.Connection(h11.CLIENT)
    connection.receive_data(got)
    while True:
        connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        connection.send(h11.EndOfMessage())
        status, body = 0, b""
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.append((status, body))
                break
            elif event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
                return found
        if connection.our_state is h11.MUST_CLOSE or not connection.trailing_data[0]:
            return found
        connection.start_next_cycle()


def get(path: bytes, *headers: bytes) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nhost: x\r\n" + b"".join(h + b"\r\n" for h in headers) + b"\r\n"


def post(path: bytes, body: bytes) -> bytes:
    return b"POST " + path + b" HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body


async def test_requests_on_one_connection_are_answered_in_order() -> None:
    async with serving() as (desk, port, _, _):
        got = await talk(port, get(b"/a") + post(b"/b", b"hello") + get(b"/c", CLOSE))
        assert answers(got) == [(200, b"/a|"), (200, b"/b|hello"), (200, b"/c|")]
        assert len(desk.asked) == 3


@given(cuts=st.lists(st.integers(1, 200), max_size=12))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_where_a_request_is_cut_changes_nothing(cuts: list[int]) -> None:
    chunked = b"POST /c HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    whole = post(b"/a", b"hello") + chunked + get(b"/z", CLOSE)
    at = sorted({cut % len(whole) for cut in cuts})
    parts = [whole[a:b] for a, b in zip([0, *at], [*at, len(whole)], strict=True)]
    async with serving() as (_, port, _, _):
        assert answers(await talk(port, *parts)) == [(200, b"/a|hello"), (200, b"/c|abcde"), (200, b"/z|")]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
        (get(b"/", b"x: " + b"y" * (MAX_HEAD + 1)), 431),
        (get(b"/", *[b"h%d: v" % n for n in range(500)]), 431),
        (get(b"/" + b"p" * (MAX_HEAD + 1)), 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ],
)
async def test_what_is_no_request_is_refused_and_the_door_stays_open(sent: bytes, status: int) -> None:
    async with serving() as (desk, port, _, _):
        got = await talk(port, sent)
        assert got.startswith(b"HTTP/1.1 %d " % status), got[:200]
        assert desk.asked == []
        assert answers(await talk(port, get(b"/ok", CLOSE))) == [(200, b"/ok|")]


@given(noise=st.binary(max_size=400))
@settings(max_examples=60, deadline=None)
async def test_no_noise_breaks_the_server(noise: bytes) -> None:
    async with serving() as (_, port, server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(noise)
        writer.write_eof()
        while await reader.read(65_536):
            pass
        writer.close()
        assert answers(await talk(port, get(b"/ok", CLOSE))) == [(200, b"/ok|")]
        assert len(server.clients) <= 1


async def test_an_upgrade_is_not_offered() -> None:
    async with serving() as (_, port, _, _):
        got = await talk(port, get(b"/u", b"upgrade: websocket", b"connection: upgrade"))
        assert answers(got) == [(200, b"/u|")]
        assert b"connection: close" in got


async def test_a_body_over_the_limit_is_read_and_marked() -> None:
    async with serving() as (desk, port, _, _):
        await talk(port, post(b"/big", b"x" * (LIMIT + 1)))
        assert desk.asked == [("POST", b"/big", 0, True)]


async def test_a_body_far_over_the_limit_is_not_read() -> None:
    async with serving() as (desk, port, _, _):
        got = await talk(port, post(b"/big", b"x" * (LIMIT * 20)))
        assert got.startswith(b"HTTP/1.1 413 ")
        assert desk.asked == []


async def test_who_expects_100_is_told_to_go_on() -> None:
    async with serving() as (_, port, _, _):
        head = b"POST /e HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
        got = await talk(port, head, b"ok")
        assert got.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


async def test_a_request_that_does_not_come_whole_in_time_is_refused() -> None:
    async with serving(request=0.3) as (desk, port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc")
        got = await asyncio.wait_for(reader.read(), 5)
        assert got.startswith(b"HTTP/1.1 408 ")
        assert desk.asked == []
        writer.close()


async def test_a_hang_up_cancels_the_request() -> None:
    async with serving() as (desk, port, _, _):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get(b"/wait"))
        await asyncio.wait_for(desk.begun.wait(), 5)
        writer.close()
        await asyncio.wait_for(desk.cancelled.wait(), 5)


async def test_a_client_that_reads_nothing_is_cut_and_memory_stays_bounded() -> None:
    async with serving(stall=0.5) as (desk, port, _, _):
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(get(b"/stream"))
        await asyncio.wait_for(desk.cancelled.wait(), 15)
        assert desk.written < 32 * 1024 * 1024
        writer.close()


async def knocks(port: int) -> bool:
    """Whether somebody opens."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def test_a_draining_server_finishes_what_it_has_begun_and_closes() -> None:
    async with serving() as (desk, port, server, stop):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get(b"/wait"))
        await asyncio.wait_for(desk.begun.wait(), 5)
        stop()
        async with asyncio.timeout(5):  # who was in the queue is let in; then the door is shut
            while await knocks(port):
                pass
        desk.go.set()
        got = await asyncio.wait_for(reader.read(), 5)
        assert answers(got) == [(200, b"/wait|")]
        assert b"connection: close" in got
        assert not server.clients
        writer.close()
