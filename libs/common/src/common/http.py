"""Serving HTTP in the service's own event loop: granian, embedded, so that one process is one pid and one signal."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from prometheus_client import generate_latest


@asynccontextmanager
async def serving(
    app: Any,  # an ASGI app
    host: str,
    port: int,
    *,
    backlog: int = 2048,
) -> AsyncIterator[Callable[[], None]]:
    """Accept connections until the block ends, or until what it yields is called; requests in progress are finished.

    Several processes may serve the same port: granian sets SO_REUSEPORT, and the kernel spreads connections.
    """
    server = Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        websockets=False,
        backlog=backlog,
        backpressure=backlog,
        http1_settings=HTTP1Settings(header_read_timeout=10_000, max_buffer_size=262_144),
        log_enabled=False,
    )
    task = asyncio.create_task(server.serve())
    stop: Callable[[], None] = server.stop
    try:
        yield stop
    finally:
        stop()
        with suppress(asyncio.CancelledError):
            await task


async def respond(send: Any, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """A whole ASGI response at once. `send` is ASGI's."""
    head = [(b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


class Probes:
    """The internal port: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever restarts processes."""

    def __init__(self) -> None:
        self.ready = False

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        path = scope["path"]
        if path == "/metrics":
            await respond(send, 200, generate_latest(), [(b"content-type", b"text/plain; version=0.0.4")])
        elif path == "/healthz":
            await respond(send, 200, b"ok\n", [(b"content-type", b"text/plain")])
        elif path == "/readyz":
            status = 200 if self.ready else 503
            await respond(
                send, status, b"ready\n" if self.ready else b"not ready\n", [(b"content-type", b"text/plain")]
            )
        else:
            await respond(send, 404, b"not found\n", [(b"content-type", b"text/plain")])
