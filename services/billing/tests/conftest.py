"""A ledger in a database of its own, records to charge, and billing in this process or its own."""

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import Error as JetStreamError

from billing import app, prices, store
from billing.routes import LAST_ID
from billing.settings import Settings
from common import bus, db, rpc
from common.db import Pool, transaction
from common.events import UsageRecorded
from common.ids import new_id

MODEL = "demo-8b"


def a_record(**fields: Any) -> UsageRecorded:
    at = datetime.now(UTC)
    values: dict[str, Any] = {
        "id": new_id(),
        "time": at,
        "tenant_id": UUID(int=1),
        "environment_id": UUID(int=2),
        "api_key_id": UUID(int=3),
        "model": MODEL,
        "endpoint": "chat.completions",
        "streamed": True,
        "outcome": "completed",
        "usage_source": "engine",
        "input_tokens": 17,
        "cached_tokens": 5,
        "output_tokens": 64,
        "started_at": at,
        "first_token_at": at,
        "ended_at": at + timedelta(seconds=1),
    }
    return UsageRecorded(**values | fields)


@pytest.fixture
def record() -> Callable[..., UsageRecorded]:
    return a_record


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Pool]:
    async with db.open_pool(postgres_dsn, "test") as pool:
        await db.migrate(pool, "billing")
        yield pool


PutPrice = Callable[..., Awaitable[None]]


@pytest.fixture
def put_price(pool: Pool) -> PutPrice:
    """$0.10, $0.01 and $0.40 a million, from an hour ago."""

    async def put(model: str = MODEL, region: str = "", since: timedelta = timedelta(hours=1)) -> None:
        await prices.put(
            pool,
            id=new_id(),
            model=model,
            region=region,
            input=100_000,
            cached_input=10_000,
            output=400_000,
            effective_from=datetime.now(UTC) - since,
            created_by="test",
        )

    return put


class Books(msgspec.Struct, frozen=True):
    """Everything that billing has written, in a form to compare."""

    usage: list[tuple[Any, ...]]
    hourly: list[tuple[Any, ...]]
    outbox: list[tuple[Any, ...]]
    monthly: list[tuple[Any, ...]]

    @property
    def cost(self) -> int:
        return sum(int(row[-1]) for row in self.usage)


async def _read_books(pool: Pool) -> Books:
    async with transaction(pool) as connection:
        lines = await store.records(connection, tenant_id=None, api_key_id=None, before=LAST_ID, limit=10**6)
        hourly = await connection.fetch(
            "select * from billing.usage_hourly where requests <> 0 or cost_picousd <> 0 order by 1,2,3,4,5,6"
        )
        outbox = await connection.fetch(
            """
            select tenant_id, hour, sum(requests), sum(cost_picousd) from billing.outbox
            group by 1, 2 having sum(requests) <> 0 or sum(cost_picousd) <> 0 order by 1, 2
            """
        )
        monthly = await connection.fetch(
            "select * from billing.usage_monthly where requests <> 0 or cost_picousd <> 0 order by 1,2,3,4,5"
        )
    usage = [(*msgspec.structs.astuple(line.event), line.price_id, line.cost) for line in lines]
    return Books(usage, [tuple(row) for row in hourly], [tuple(row) for row in outbox], [tuple(row) for row in monthly])


@pytest.fixture
def read_books() -> Callable[[Pool], Awaitable[Books]]:
    return _read_books


@pytest.fixture
def books(pool: Pool) -> Callable[[], Awaitable[Books]]:
    async def read() -> Books:
        return await _read_books(pool)

    return read


@pytest.fixture
def settings(postgres_dsn: str, nats_url: str) -> Settings:
    return Settings(postgres_dsn=postgres_dsn, nats_url=nats_url)


@pytest.fixture
async def client(nats_url: str) -> AsyncIterator[bus.Bus]:
    async with bus.connect(nats_url, "test") as connected:
        yield connected


@pytest.fixture
async def service(settings: Settings, pool: Pool) -> AsyncIterator[Settings]:
    """All of billing in this event loop."""
    stopping = asyncio.Event()
    task = asyncio.create_task(app.run(settings, stopping))
    yield settings
    stopping.set()
    await task


Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def spawn(settings: Settings, spawn_service: Callable[..., Any]) -> Spawn:
    """Start `python -m billing`, with other settings where they are named."""
    return lambda **changes: spawn_service("billing", msgspec.structs.replace(settings, **changes))


Ask = Callable[..., Awaitable[tuple[int, Any]]]


@pytest.fixture
def ask(client: bus.Bus) -> Ask:
    """`await ask("GET", "/admin/prices", model="m")` → status and body, retried until a replica listens."""

    async def call(method: str, path: str, body: object = None, **query: object) -> tuple[int, Any]:
        request = rpc.Call(
            method=method,
            path=path,
            query={name.rstrip("_"): str(value) for name, value in query.items()},
            body=msgspec.Raw(msgspec.json.encode(body)),
            actor="test",
            request_id="test",
        )
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(rpc.Unavailable):
                    reply = await rpc.forward(client, "billing", request)
                    return reply.status, msgspec.json.decode(reply.body)
                await asyncio.sleep(0.02)

    return call


@pytest.fixture
def send(client: bus.Bus) -> Callable[..., Awaitable[None]]:
    """Publish records as gateways do; with `again`, so that the stream does not know them as duplicates."""

    async def publish(*events: UsageRecorded, again: str = "") -> None:
        for start in range(0, len(events), 500):
            await asyncio.gather(
                *(client.publish(e.subject, bus.encode(e), f"{e.id}{again}") for e in events[start : start + 500])
            )

    return publish


@pytest.fixture
async def impatient(client: bus.Bus) -> None:
    """The service's consumer, made beforehand: what a killed process had in hand comes again after a second."""
    config = ConsumerConfig(
        durable_name="billing", ack_policy=AckPolicy.EXPLICIT, filter_subject="usage.recorded.v1.>", ack_wait=1
    )
    await client.js.add_consumer("USAGE", config)


Eventually = Callable[..., Awaitable[Any]]


@pytest.fixture
def eventually() -> Eventually:
    """Ask again until the answer is truthy; it is returned."""

    async def wait(question: Callable[[], Awaitable[Any]], seconds: float = 60) -> Any:
        deadline = time.monotonic() + seconds
        while not (answer := await question()):
            assert time.monotonic() < deadline, "it did not happen in time"
            await asyncio.sleep(0.02)
        return answer

    return wait


@pytest.fixture
def settled(client: bus.Bus, eventually: Eventually) -> Callable[[], Awaitable[None]]:
    """Wait until the consumer has dealt with everything that is in the stream."""

    async def nothing_left() -> bool:
        with contextlib.suppress(JetStreamError):  # before the consumer is there
            info = await client.js.consumer_info("USAGE", "billing")
            return not info.num_pending and not info.num_ack_pending
        return False

    async def wait() -> None:
        await eventually(nothing_left)

    return wait
