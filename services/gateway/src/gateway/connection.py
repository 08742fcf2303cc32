"""One HTTP/1.1 connection to an engine: bytes in, body parts out, without a task switch of its own per part.

httptools parses; this module owns the socket, the order of exchanges and the backpressure.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools

HIGH_WATER = 256 * 1024  # bytes waiting for a client that reads slowly, after which the engine must wait too


class Broken(Exception):
    """The connection ended, or made no sense, before the response was complete."""


class Connection(asyncio.Protocol):
    """Carries one exchange at a time: `start`, `head`, then `read` until it answers b""."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_idle: Callable[["Connection"], None]) -> None:
        self._loop = loop
        self._on_idle = on_idle
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._parts: deque[bytes] = deque()
        self._waiting = 0
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Callable[[bytes], bool] | None = None
        self._paused = False
        self._failure: str | None = None
        self._released = False
        self.status = 0
        self.content_type = b""
        self.complete = True
        self.keep_alive = False
        self.body_began = False
        self.heard_at = 0.0
        """Loop time of the last byte, for whoever ends stalled exchanges."""
        self.idle_since = 0.0

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        if self.complete:
            self._fail("the engine spoke out of turn")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"the engine's answer is not HTTP: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("the engine closed the connection")

    # httptools' callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self.content_type = value

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.keep_alive = self._parser.should_keep_alive()
        self._wake()

    def on_body(self, body: bytes) -> None:
        self.body_began = True
        if self._sink is not None:
            if self._sink(body):
                self._sink = None
                self._wake()
            return
        self._parts.append(body)
        self._waiting += len(body)
        if self._waiting > HIGH_WATER and not self._paused and self._transport is not None:
            self._transport.pause_reading()
            self._paused = True
        self._wake()

    def on_message_complete(self) -> None:
        self.complete = True
        self._wake()
        if self._released:
            self._give_back()

    # for the exchange

    @property
    def paused(self) -> bool:
        """Nothing is read from the engine, because its client does not read."""
        return self._transport is not None and not self._transport.is_reading()

    @property
    def usable(self) -> bool:
        return self._failure is None and self._transport is not None and not self._transport.is_closing()

    def start(self, request: bytes) -> None:
        """Send a request; the connection must be idle."""
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self.status, self.content_type, self.complete, self._released = 0, b"", False, False
        self.body_began = False
        self.heard_at = self._loop.time()
        self._transport.write(request)

    async def head(self) -> int:
        """The status; raises Broken."""
        while not self.status:
            if self._failure is not None:
                raise Broken(self._failure)
            await self._wait()
        return self.status

    async def read(self) -> bytes:
        """All of the body that has come and was not read yet; b"" at its proper end. Raises Broken."""
        while not self._parts:
            if self.complete:
                return b""
            if self._failure is not None:
                raise Broken(self._failure)
            await self._wait()
        if len(self._parts) == 1:
            data = self._parts.popleft()
        else:
            data = b"".join(self._parts)
            self._parts.clear()
        self._waiting = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def relay(self, sink: Callable[[bytes], bool]) -> None:
        """Hand the body to `sink` as it comes, from the socket's callback, until it answers True or the body ends.

        Raises Broken.
        """
        while self._parts:
            if sink(self._parts.popleft()):
                return
        self._waiting = 0
        if self.complete:
            return
        self._sink = sink
        try:
            while self._sink is not None and not self.complete:
                if self._failure is not None:
                    raise Broken(self._failure)
                await self._wait()
        finally:
            self._sink = None

    def pause(self) -> asyncio.Transport | None:
        """Let the engine wait until the caller resumes the transport."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
        return self._transport

    def release(self) -> None:
        """The caller is done: keep the connection when the response has ended, else cut it, which aborts the engine."""
        if self.complete:
            self._give_back()
        else:
            self.abort("the client has gone")

    def finish(self) -> None:
        """The caller has all that it needs and the end is on its way: keep the connection once it is here."""
        if self.complete:
            self._give_back()
        else:
            self._released = True

    def abort(self, reason: str) -> None:
        self._fail(reason)

    def _give_back(self) -> None:
        if self.usable and self.keep_alive and not self._parts:
            self.idle_since = self._loop.time()
            self._on_idle(self)
        else:
            self.abort("the connection cannot be kept")

    def _fail(self, reason: str) -> None:
        if self._failure is None:
            self._failure = reason
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
