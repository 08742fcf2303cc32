"""A ledger in a database of its own, records to charge, and billing in this process or its own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from billing import prices, store
from common import db
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

    @property
    def cost(self) -> int:
        return sum(int(row[-1]) for row in self.usage)


async def read_books(pool: Pool) -> Books:
    async with transaction(pool) as connection:
        lines = await store.records(connection, tenant_id=None, api_key_id=None, before=LAST_ID, limit=10**6)
        hourly = await connection.fetch("select * from billing.usage_hourly where requests > 0 order by 1,2,3,4,5,6")
        outbox = await connection.fetch(
            """
            select tenant_id, hour, sum(requests), sum(cost_picousd) from billing.outbox
            group by 1, 2 having sum(requests) > 0 or sum(cost_picousd) > 0 order by 1, 2
            """
        )
    usage = [(*msgspec.structs.astuple(line.event), line.price_id, line.cost) for line in lines]
    return Books(usage, [tuple(row) for row in hourly], [tuple(row) for row in outbox])


@pytest.fixture
def books(pool: Pool) -> Callable[[], Awaitable[Books]]:
    async def read() -> Books:
        return await read_books(pool)

    return read
