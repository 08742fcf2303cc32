"""Connections to engines: pooled, never reused when the engine is about to close them, cut when they stall."""

import asyncio
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from common.routing import Node
from gateway.connection import Broken, Connection

REUSE_WITHIN = 3.5
"""Seconds; vLLM closes idle connections after 5.0."""
SWEEP = 0.5


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds."""

    connect: float
    first_byte: float
    idle: float
    total: float


class Stalled(Broken):
    """Nothing came for too long."""


class Overdue(Stalled):
    """It took longer than any request may; no other engine is asked."""


class Exchange:
    """One request to one engine. `head`, `read` as of Connection; raises Broken, or Stalled when a deadline cut it."""

    __slots__ = ("connection", "overdue", "stalled", "started_at", "upstream")

    def __init__(self, upstream: "Upstream", connection: Connection, started_at: float) -> None:
        self.upstream = upstream
        self.connection = connection
        self.started_at = started_at
        self.stalled = False
        self.overdue = False

    async def head(self) -> int:
        try:
            return await self.connection.head()
        except Broken as error:
            raise self._told(error) from error

    async def read(self) -> bytes:
        try:
            data = await self.connection.read()
        except Broken as error:
            raise self._told(error) from error
        return data

    async def relay(self, sink: Callable[[bytes], bool]) -> None:
        """As of Connection."""
        try:
            await self.connection.relay(sink)
        except Broken as error:
            raise self._told(error) from error

    async def rest(self) -> bytes:
        """The body up to its end."""
        parts = []
        while data := await self.read():
            parts.append(data)
        return b"".join(parts)

    def close(self, *, done: bool) -> None:
        """Give the connection back. `done`: the reply was read as far as it matters; else the engine is aborted."""
        self.upstream.forget(self)
        if done:
            self.connection.finish()
        else:
            self.connection.release()

    def _told(self, error: Broken) -> Broken:
        if self.overdue:
            return Overdue(str(error))
        return Stalled(str(error)) if self.stalled else error


class Upstream:
    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._idle: dict[str, list[Connection]] = {}
        self._live: set[Exchange] = set()
        self._tls: ssl.SSLContext | None = None

    async def send(
        self, node: Node, path: str, body: bytes, request_id: str, traceparent: str | None = None
    ) -> Exchange:
        """POST a JSON body. Raises Broken when no connection can be had."""
        loop = asyncio.get_running_loop()
        connection = self._reusable(node.endpoint, loop.time()) or await self._connect(node.endpoint)
        connection.start(_head(node, path, len(body), request_id, traceparent) + body)
        exchange = Exchange(self, connection, loop.time())
        self._live.add(exchange)
        return exchange

    def forget(self, exchange: Exchange) -> None:
        self._live.discard(exchange)

    async def sweep(self) -> None:
        """Cut exchanges whose engine has gone silent; one timer for all instead of one a chunk."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP)
            now = loop.time()
            for exchange in list(self._live):
                connection = exchange.connection
                if not connection.complete and now - exchange.started_at > self._timeouts.total:
                    exchange.overdue = True
                    connection.abort(f"the engine took longer than {self._timeouts.total:g} s")
                    continue
                limit = self._timeouts.idle if connection.body_began else self._timeouts.first_byte
                if not connection.complete and not connection.paused and now - connection.heard_at > limit:
                    exchange.stalled = True
                    connection.abort(f"the engine was silent for {limit:g} s")
            for connections in self._idle.values():
                while connections and now - connections[0].idle_since > REUSE_WITHIN:
                    connections.pop(0).abort("idle")

    def cut(self, reason: str) -> None:
        """End every exchange that still runs."""
        for exchange in list(self._live):
            exchange.connection.abort(reason)

    def close(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.abort("shutting down")

    def _reusable(self, endpoint: str, now: float) -> Connection | None:
        connections = self._idle.get(endpoint)
        while connections:
            connection = connections.pop()
            if connection.usable and now - connection.idle_since < REUSE_WITHIN:
                return connection
            connection.abort("idle")
        return None

    async def _connect(self, endpoint: str) -> Connection:
        url = urlsplit(endpoint)
        loop = asyncio.get_running_loop()
        idle = self._idle.setdefault(endpoint, [])
        tls = self._context() if url.scheme == "https" else None
        port = url.port or (443 if tls else 80)
        try:
            async with asyncio.timeout(self._timeouts.connect):
                _, connection = await loop.create_connection(
                    lambda: Connection(loop, idle.append), url.hostname or "", port, ssl=tls
                )
        except (OSError, TimeoutError) as error:
            raise Broken(f"no connection to the engine: {error!r}") from error
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


def _head(node: Node, path: str, length: int, request_id: str, traceparent: str | None) -> bytes:
    host = node.endpoint.split("://", 1)[1]
    key = f"Authorization: Bearer {node.api_key}\r\n" if node.api_key else ""
    trace = f"traceparent: {traceparent}\r\n" if traceparent else ""
    return (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{key}{trace}"
        f"X-Request-Id: {request_id}\r\nContent-Length: {length}\r\n\r\n"
    ).encode("latin-1")
