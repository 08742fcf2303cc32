"""Where the servers of tests come from: named in the environment, else embedded, else in containers."""

import asyncio
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg
import nats
from nats.errors import Error as NatsError

from stack import containers, ports, postgres, servers
from stack.containers import Image
from stack.loop import LoopThread
from stack.process import Child, Command, NotInstalled, StartFailed

SECONDS = 60.0


@contextmanager
def postgres_server(thread: LoopThread, folder: Path) -> Iterator[str]:
    """The DSN of a database in which others may be created."""
    if url := os.environ.get("TEST_POSTGRES_URL"):
        yield url
        return
    try:
        port = ports.reserve()
        server = thread.wait(postgres.prepare(folder / "postgres", port, durable=False))
    except NotInstalled as missing:
        with _container(thread, containers.POSTGRES, missing, _connects) as url:
            yield url
        return
    with _child(thread, server.command, folder, port):
        yield server.dsn


@contextmanager
def nats_server(thread: LoopThread, folder: Path) -> Iterator[str]:
    """A server without streams. One that the environment names is emptied, and lent to one test at a time."""
    if url := os.environ.get("TEST_NATS_URL"):
        lock = Path(tempfile.gettempdir(), f"crosslogic-nats-{hashlib.sha256(url.encode()).hexdigest()[:16]}")
        with lock.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            thread.wait(empty(url))
            yield url
        return
    port, monitor = ports.reserve(), ports.reserve()
    data = folder / f"nats-{port.number}"
    try:
        server = servers.nats(data, port, monitor, durable=False)
    except NotInstalled as missing:
        with _container(thread, containers.NATS, missing, empty) as url:
            yield url
        return
    with _child(thread, server.command, data, port, monitor):
        yield server.url
    shutil.rmtree(data, ignore_errors=True)


@contextmanager
def valkey_server(thread: LoopThread, folder: Path) -> Iterator[str]:
    if url := os.environ.get("TEST_REDIS_URL"):
        yield url
        return
    port = ports.reserve()
    try:
        server = servers.valkey(folder / "valkey", port, durable=False)
    except NotInstalled as missing:
        with _container(thread, containers.VALKEY, missing) as url:
            yield url
        return
    with _child(thread, server.command, folder, port):
        yield server.url


async def empty(url: str) -> None:
    """Delete every stream of a NATS server, key-value buckets among them."""
    connection = await nats.connect(url, allow_reconnect=False)
    try:
        for stream in await connection.jetstream().streams_info():
            await connection.jetstream().delete_stream(stream.config.name or "")
    finally:
        await connection.close()


@contextmanager
def _child(thread: LoopThread, command: Command, folder: Path, *reserved: ports.Port) -> Iterator[None]:
    child = Child(command, folder / "logs", restart=True)
    try:
        thread.wait(child.start())
        yield
    finally:
        thread.wait(child.stop())
        for port in reserved:
            port.release()


@contextmanager
def _container(
    thread: LoopThread, image: Image, missing: NotInstalled, probe: Callable[[str], Awaitable[None]] | None = None
) -> Iterator[str]:
    try:
        with containers.running(image) as url:
            if probe:
                thread.wait(_patiently(probe, url))
            yield url
    except StartFailed as error:
        raise StartFailed(f"{missing}; {error}") from error


async def _patiently(probe: Callable[[str], Awaitable[None]], url: str) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError, asyncpg.PostgresError, NatsError, TimeoutError):
            return await probe(url)
        await asyncio.sleep(0.1)
    raise StartFailed("the container did not answer in time")


async def _connects(dsn: str) -> None:
    await (await asyncpg.connect(dsn, timeout=5)).close()
