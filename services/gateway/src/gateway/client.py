"""One client's HTTP/1.1 connection: requests parsed whole, replies written straight to the socket.

httptools parses. Of our own is only what no server offers in one place: a reply may be written from the engine's
callback without a task switch, a hang-up cancels the request at once, and a client that does not read is noticed.
"""

import asyncio
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias, cast

import httptools
import msgspec

from common.errors import InvalidRequest, reply_of

if TYPE_CHECKING:
    from gateway.server import Server

Headers: TypeAlias = list[tuple[bytes, bytes]]

MAX_HEAD = 64 * 1024
MAX_HEADERS = 100
MAX_PIPELINED = 8
LINGER = 1.0
"""Seconds in which a client that was refused may read why."""
WRITE_HIGH = 256 * 1024
"""Bytes of a reply that wait for the client before the engine must wait too."""
REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


class Request:
    """As it came, with header names in lower case; `body` is empty when `too_large`."""

    __slots__ = ("body", "headers", "keep_alive", "method", "path", "query", "too_large")

    def __init__(self, method: str, target: bytes, headers: Headers, keep_alive: bool) -> None:
        path, _, self.query = target.partition(b"?")
        self.method = method
        self.path = path
        self.headers = headers
        self.keep_alive = keep_alive
        self.body = b""
        self.too_large = False


class Client(asyncio.Protocol):
    def __init__(self, server: "Server", loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: Headers = []
        self._head_size = 0
        self._parts: list[bytes] = []
        self._size = 0
        self._request: Request | None = None
        self._waiting: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._failed = False
        self.address = ""
        """The peer's, as the socket tells."""
        self.replying: Request | None = None
        self.receiving = False
        """A request has begun and has not come whole."""
        self.since = loop.time()
        """Loop time at which the present wait (for a head, a body, the next request) began."""
        self.stalled_since: float | None = None
        """Loop time since which the client reads nothing, while there is something to read."""
        self.paused_by: asyncio.Transport | None = None
        """The engine's transport, while it waits for this client."""

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else ""
        self._server.clients.add(self)

    def data_received(self, data: bytes) -> None:
        if self._failed:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # not offered here: the request is answered as if it had not asked, and nothing after it is read
            if self.replying is not None:
                self.replying.keep_alive = False
        except httptools.HttpParserError:
            self._refuse(400, "this is not HTTP/1.1")

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.clients.discard(self)
        self._failed = True
        self.resume_writing()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self.stalled_since = self._loop.time()

    def resume_writing(self) -> None:
        self.stalled_since = None
        if self.paused_by is not None:
            engine, self.paused_by = self.paused_by, None
            if not engine.is_closing():
                engine.resume_reading()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # httptools' callbacks

    def on_message_begin(self) -> None:
        self.receiving = True
        self._target, self._headers, self._head_size = b"", [], 0
        self._parts, self._size, self._request = [], 0, None
        if self.replying is None:
            self.since = self._loop.time()

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._grown(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))
        self._grown(len(name) + len(value))

    def on_headers_complete(self) -> None:
        method = self._parser.get_method().decode("latin-1")
        self._request = Request(method, self._target, self._headers, self._parser.should_keep_alive())
        for name, value in self._headers:
            if name == b"expect" and value.lower() == b"100-continue":
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size <= self._server.max_body_bytes:
            self._parts.append(body)
        else:  # read to its end all the same: a client that cannot send does not listen either
            self._parts.clear()
            if self._size > self._server.max_body_bytes * 8:
                self._refuse(413, "the body is too large")

    def on_message_complete(self) -> None:
        request = self._request
        self.receiving = False
        if request is None or self._failed:
            return
        request.too_large = self._size > self._server.max_body_bytes
        request.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        if self.replying is None:
            self._begin(request)
        else:
            self._waiting.append(request)
            if len(self._waiting) > MAX_PIPELINED:
                self._refuse(400, "too many requests at once on one connection")

    # for the handler

    def write(self, data: bytes) -> None:
        if not self._failed:
            self._transport.write(data)

    def head(self, status: int, headers: Headers, length: int | None) -> bytes:
        """A reply's head; `length` None means that chunks follow."""
        request = self.replying
        lines = [b"HTTP/1.1 %d %s\r\n" % (status, REASONS.get(status, b"-"))]
        lines += [b"%s: %s\r\n" % header for header in headers]
        lines.append(b"transfer-encoding: chunked\r\n" if length is None else b"content-length: %d\r\n" % length)
        if request is None or not request.keep_alive or self._server.draining:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    async def drained(self) -> None:
        """Returns once the client reads again."""
        while self.stalled_since is not None and not self._failed:
            self._writable = self._loop.create_future()
            await self._writable

    def close(self) -> None:
        """End it, now if it is idle, else after the present reply."""
        if self.replying is None:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def _begin(self, request: Request) -> None:
        self.replying = request
        self._task = self._loop.create_task(self._server.handle(request, self))
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        request, self.replying, self._task = self.replying, None, None
        self.since = self._loop.time()
        if task.cancelled() or task.exception() is not None:
            self._transport.abort()
        elif request is None or not request.keep_alive or self._server.draining:
            self._transport.close()
        elif self._waiting:
            self._begin(self._waiting.popleft())

    def _grown(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEAD or len(self._headers) > MAX_HEADERS:
            self._refuse(431, "the head is too large")

    def refuse_late(self) -> None:
        """The request did not come whole in time."""
        self._refuse(408, "the request did not come in time")

    def _refuse(self, status: int, why: str) -> None:
        if self._failed:
            return
        if self.replying is None and not self._transport.is_closing():
            body = msgspec.json.encode(reply_of(InvalidRequest(why)))
            self._transport.write(self.head(status, [(b"content-type", b"application/json")], len(body)) + body)
        self._failed = True
        # a client that still sends would be reset, and not see the answer
        self._loop.call_later(LINGER, self._transport.close)
