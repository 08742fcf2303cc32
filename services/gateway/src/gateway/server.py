"""The public port: connections accepted, deadlines kept, drained before the process ends."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

from gateway.client import Client, Request

log = logging.getLogger(__name__)
Handler: TypeAlias = Callable[[Request, Client], Awaitable[None]]

GRACE = 1.0
"""Seconds for requests that were on their way when the door closed."""
KEEP_ALIVE = 75.0
"""Seconds that a connection may be idle between two requests."""


class Server:
    def __init__(self, handler: Handler, max_body_bytes: int, request_timeout: float, stall_timeout: float) -> None:
        """Seconds: `request_timeout` for a request to come whole, `stall_timeout` for a client that reads nothing."""
        self._handler = handler
        self._request_timeout = request_timeout
        self._stall_timeout = stall_timeout
        self.max_body_bytes = max_body_bytes
        self.clients: set[Client] = set()
        self.draining = False
        self.port = 0
        """Where it listens."""

    async def handle(self, request: Request, client: Client) -> None:
        await self._handler(request, client)

    def drain(self) -> None:
        """No more requests on any connection after the present one."""
        self.draining = True
        for client in list(self.clients):
            client.close()

    async def emptied(self, timeout: float) -> None:
        """Returns once every client has gone, or after `timeout` seconds."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        await asyncio.sleep(0)
        while self.clients and loop.time() < until:  # noqa: ASYNC110  a client goes in a callback of the socket
            await asyncio.sleep(0.02)

    async def sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(0.5)
            now = loop.time()
            for client in list(self.clients):
                self._look(client, now)

    def _look(self, client: Client, now: float) -> None:
        if client.stalled_since is not None and now - client.stalled_since > self._stall_timeout:
            log.info("a client read nothing for %g s: cut", self._stall_timeout)
            client.abort()
        elif client.replying is None and client.receiving and now - client.since > self._request_timeout:
            client.refuse_late()
        elif client.replying is None and not client.receiving and now - client.since > KEEP_ALIVE:
            client.close()


@asynccontextmanager
async def listening(server: Server, host: str, port: int) -> AsyncIterator[Callable[[], None]]:
    """Accept until the block ends or what it yields is called. Several processes may listen on the same port."""
    loop = asyncio.get_running_loop()
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))
    server.port = listener.getsockname()[1]
    spare = listener.dup()
    accepting = await loop.create_server(lambda: Client(server, loop), sock=listener, backlog=4096)
    sweeping = asyncio.create_task(server.sweep())
    late: set[asyncio.Task[object]] = set()

    def take_the_rest() -> None:
        """Who is in the queue of a socket that closes is reset; so they are let in first."""
        with spare:
            spare.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    connection, _ = spare.accept()
                    task = loop.create_task(_admit(server, loop, connection))
                    late.add(task)
                    task.add_done_callback(late.discard)

    def stop() -> None:
        if accepting.is_serving():
            accepting.close()
            loop.call_soon(take_the_rest)
        server.drain()

    try:
        yield stop
    finally:
        stop()
        await server.emptied(GRACE)
        sweeping.cancel()
        for client in list(server.clients):
            client.abort()


async def _admit(server: Server, loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    await loop.connect_accepted_socket(lambda: Client(server, loop), connection)
