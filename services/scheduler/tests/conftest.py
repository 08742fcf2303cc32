"""Valkey and NATS servers that a test may stop and start again, and the scheduler in this process or its own."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from redis.asyncio import Redis

from common import bus, leases, rpc
from common.events import UsageRecorded
from common.ids import new_id
from common.routing import BUCKET, KEY, Snapshot
from scheduler import app
from scheduler.settings import Settings
from stack import servers
from stack.ports import Port, reserve


def a_draft() -> UsageRecorded:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return UsageRecorded(
        id=new_id(),
        time=now,
        tenant_id=new_id(),
        environment_id=new_id(),
        api_key_id=new_id(),
        model="demo-8b",
        region="eu",
        endpoint="chat.completions",
        streamed=True,
        outcome="completed",
        usage_source="engine",
        input_tokens=99,
        output_tokens=99,
        started_at=now,
        ended_at=now,
    )


@pytest.fixture
def draft() -> UsageRecorded:
    return a_draft()


class Server:
    """A server that a test kills and starts again on its port."""

    def __init__(self, server: servers.Server, folder: Path, port: Port) -> None:
        self.url, self._argv = server.url, server.command.argv
        self._folder, self._port = folder, port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port.number), 1):
                return
            time.sleep(0.01)
        raise AssertionError(f"{self._argv[0]} did not start")

    def kill(self, *, empty: bool = False) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if empty:
            shutil.rmtree(self._folder / "jetstream")


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Server]:
    port = reserve()
    yield from serving(
        Server(servers.valkey(tmp_path / "valkey", port, durable=False), tmp_path / "valkey", port), port
    )


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Server]:
    port, monitor = reserve(), reserve()
    server = servers.nats(tmp_path / "nats", port, monitor, durable=False)
    yield from serving(Server(server, tmp_path / "nats", port), port, monitor)


def serving(server: Server, *ports: Port) -> Iterator[Server]:
    server.start()
    yield server
    server.kill()
    for port in ports:
        port.release()


@pytest.fixture
def settings(postgres_dsn: str, nats: Server, valkey: Server) -> Settings:
    return Settings(
        postgres_dsn=postgres_dsn, nats_url=nats.url, redis_url=valkey.url, health_interval=0.1, health_timeout=2.0
    )


@pytest.fixture
async def client(nats: Server) -> AsyncIterator[bus.Bus]:
    async with bus.connect(nats.url, "test") as connected:
        yield connected


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[None]:
    """The whole service in this event loop."""
    stopping = asyncio.Event()
    task = asyncio.create_task(app.run(settings, stopping))
    try:
        yield
    finally:
        stopping.set()
        await task


@pytest.fixture
async def service(settings: Settings, client: bus.Bus) -> AsyncIterator[Settings]:
    async with running(settings):
        yield settings


@pytest.fixture
def run_service() -> Callable[[Settings], contextlib.AbstractAsyncContextManager[None]]:
    return running


class Wire:
    """A TCP relay to Postgres that can be cut."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self.cut = False

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.cut:
            writer.close()
            return
        upstream, onward = await asyncio.open_connection(*self._target)
        self._writers |= {writer, onward}
        with contextlib.suppress(OSError):
            await asyncio.gather(self._copy(reader, onward), self._copy(upstream, writer))

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            target.write(data)
        target.close()
        self._writers.discard(target)

    def break_all(self) -> None:
        self.cut = True
        for writer in tuple(self._writers):
            writer.close()


@pytest.fixture
async def wire(postgres_dsn: str) -> AsyncIterator[tuple[Wire, str]]:
    parts = urlsplit(postgres_dsn)
    relay = Wire(parts.hostname or "", parts.port or 5432)
    server = await asyncio.start_server(relay.relay, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield relay, postgres_dsn.replace(f":{parts.port}/", f":{port}/")
    finally:
        server.close()
        relay.break_all()


Spawn = Callable[[Settings], "subprocess.Popen[bytes]"]


@pytest.fixture
def spawn(spawn_service: Callable[..., Any]) -> Spawn:
    """Start `python -m scheduler`."""
    return lambda settings: spawn_service("scheduler", settings)


Ask = Callable[..., Awaitable[tuple[int, Any]]]


@pytest.fixture
def ask(client: bus.Bus) -> Ask:
    """`await ask("GET", "/admin/nodes")` → status and body, retried until a replica listens."""

    async def call(
        method: str, path: str, body: object = None, *, query: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        request = rpc.Call(
            method=method,
            path=path,
            query=query or {},
            body=msgspec.Raw(msgspec.json.encode(body)),
            actor="test",
            request_id="test",
        )
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(rpc.Unavailable):
                    reply = await rpc.forward(client, "scheduler", request)
                    return reply.status, msgspec.json.decode(reply.body)
                await asyncio.sleep(0.02)

    return call


Eventually = Callable[..., Awaitable[Any]]


@pytest.fixture
def eventually() -> Eventually:
    """Ask again until the answer is truthy; it is returned."""

    async def wait(question: Callable[[], Awaitable[Any]], seconds: float = 20) -> Any:
        deadline = time.monotonic() + seconds
        while not (answer := await question()):
            assert time.monotonic() < deadline, "it did not happen in time"
            await asyncio.sleep(0.02)
        return answer

    return wait


class Gateway:
    """What a gateway does with leases."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.key = leases.leases_key("crosslogic")

    async def call(self, function: str, *arguments: object) -> Any:
        return await self.redis.fcall(function, 1, self.key, *arguments)  # type: ignore[misc,arg-type]  # redis-py

    async def begin(self, count: int = 1, node: str = "node-1", ttl: int = 60_000) -> list[UsageRecorded]:
        """Take a lease for each request and report 17 + 40 tokens."""
        drafts = [a_draft() for _ in range(count)]
        progress = msgspec.json.encode(leases.Progress(17, 5, 40))
        for draft in drafts:
            await self.call("cl_take", str(draft.id), 60_000, msgspec.json.encode(draft), 0.5, "", node, 0, 1)
        await self.call("cl_renew", ttl, *(value for draft in drafts for value in (str(draft.id), progress)))
        return drafts

    async def die_with(self, count: int) -> list[UsageRecorded]:
        """Requests whose leases nobody renews any more."""
        return await self.begin(count, ttl=0)

    async def left(self) -> int:
        return int(await self.redis.zcard(self.key))


@pytest.fixture
async def gateway(valkey: Server) -> AsyncIterator[Gateway]:
    redis = Redis.from_url(valkey.url)
    try:
        yield Gateway(redis)
    finally:
        await redis.aclose()


Routes = Callable[[], Awaitable[Snapshot]]


@pytest.fixture
def routes(client: bus.Bus) -> Routes:
    """The published snapshot."""

    async def read() -> Snapshot:
        body = await client.get(BUCKET, KEY)
        return Snapshot(0) if body is None else msgspec.json.decode(body, type=Snapshot)

    return read


Stored = Callable[[str], Awaitable[list[Any]]]


@pytest.fixture
def stored(client: bus.Bus) -> Stored:
    """All messages of a stream, decoded."""

    async def read(stream: str) -> list[Any]:
        state = (await client.js.stream_info(stream)).state
        messages = [await client.js.get_msg(stream, seq=1 + number) for number in range(state.messages)]
        return [msgspec.json.decode(message.data or b"null") for message in messages]

    return read
