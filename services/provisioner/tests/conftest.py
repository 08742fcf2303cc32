"""The provisioner in this event loop, and a client that asks it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from common import bus, db, rpc
from common.db import Pool
from provisioner import app
from provisioner.settings import Settings


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Pool]:
    async with db.open_pool(postgres_dsn, "test") as pool:
        await db.migrate(pool, "provisioner")
        yield pool


@pytest.fixture
async def client(nats_url: str) -> AsyncIterator[bus.Bus]:
    async with bus.connect(nats_url, "test") as connected:
        yield connected


@pytest.fixture
def settings(postgres_dsn: str, nats_url: str) -> Settings:
    return Settings(postgres_dsn=postgres_dsn, nats_url=nats_url, secret_key="k" * 32)


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    task = asyncio.create_task(app.run(settings, stopping))
    yield
    stopping.set()
    await task


@pytest.fixture
def desired(client: bus.Bus) -> Callable[[], Awaitable[dict[str, Any]]]:
    """What `GET /admin/scale` answers, by model; retried until a replica listens."""

    async def ask() -> dict[str, Any]:
        call = rpc.Call(method="GET", path="/admin/scale", actor="test", request_id="test")
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(rpc.Unavailable):
                    reply = await rpc.forward(client, "provisioner", call)
                    assert reply.status == 200
                    return {row["model"]: row for row in msgspec.json.decode(reply.body)["desired"]}
                await asyncio.sleep(0.02)

    return ask
