"""Any order, duplication and batching of the same records gives the same ledger, sums, outbox and invoices, and the
same records wait for a price, whenever it is put."""

import asyncio
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing import invoices, ledger, prices
from billing.invoicing import Invoice
from billing.precedence import strongest
from common import db
from common.db import Pool
from common.events import UsageRecorded
from common.ids import first_id

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
LATER = NOW + timedelta(days=1)


@st.composite
def records(draw: st.DrawFn) -> UsageRecorded:
    """Of four requests, so that ids collide; they may disagree about everything."""
    number = draw(st.integers(0, 3))
    started = NOW - draw(st.sampled_from([0, 1, 2])) * HOUR
    fresh, cached = draw(st.integers(0, 2)), draw(st.integers(0, 1))
    return UsageRecorded(
        id=UUID(int=first_id(NOW).int + number),
        time=NOW,
        tenant_id=UUID(int=draw(st.integers(1, 2))),
        environment_id=UUID(int=2),
        api_key_id=UUID(int=draw(st.integers(3, 4))),
        model=draw(st.sampled_from(["cheap", "dear", "late"])),
        node_id=draw(st.sampled_from([None, "node-1"])),
        endpoint="chat.completions",
        streamed=draw(st.booleans()),
        outcome=draw(st.sampled_from(["completed", "client_disconnected", "gateway_lost"])),
        usage_source="engine",
        input_tokens=fresh + cached,
        cached_tokens=cached,
        output_tokens=draw(st.integers(0, 2)),
        started_at=started,
        ended_at=started + draw(st.sampled_from([0, 1])) * HOUR,
    )


@pytest.fixture
def loop(postgres_dsn: str) -> Iterator[asyncio.Runner]:
    # hypothesis calls a plain function many times; the pool lives in a loop that outlasts a call
    with asyncio.Runner() as runner:
        yield runner


async def _clear(pool: Pool) -> None:
    await pool.execute("truncate billing.usage, billing.usage_hourly, billing.usage_monthly, billing.outbox")
    # prices are append-only, even for their owner, unless triggers are off
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("set local session_replication_role = replica")
        await connection.execute("delete from billing.prices where model = 'late'")


async def _charge(pool: Pool, batch: list[UsageRecorded]) -> list[UsageRecorded]:
    """As the consumer does: what has no price is set aside, the rest is tried again; returns what was set aside."""
    try:
        await ledger.record(pool, batch)
    except ledger.Unpriced as unpriced:
        await ledger.record(pool, [event for index, event in enumerate(batch) if index not in unpriced.reasons])
        return [batch[index] for index in unpriced.reasons]
    return []


async def _invoices(pool: Pool) -> list[Invoice]:
    return [one for tenant in (1, 2) for one in await invoices.of_tenant(pool, UUID(int=tenant), LATER, 9, NOW)]


async def _sell(pool: Pool, offers: dict[str, int]) -> None:
    for model, price in offers.items():
        await prices.put(
            pool,
            id=UUID(int=price),  # the same whenever it is put
            model=model,
            region="",
            input=price,
            cached_input=price // 3,
            output=price * 5,
            effective_from=NOW - timedelta(days=1),
            created_by="test",
        )


def test_every_order_and_batching_gives_the_same_books(
    loop: asyncio.Runner, postgres_dsn: str, read_books: Any
) -> None:
    opened = db.open_pool(postgres_dsn, "test", 2)
    pool = loop.run(opened.__aenter__())
    loop.run(db.migrate(pool, "billing"))
    loop.run(_sell(pool, {"cheap": 3, "dear": 7_000_000}))

    @settings(max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(records(), min_size=1, max_size=8), st.randoms(use_true_random=False), st.integers(1, 5))
    def same(events: list[UsageRecorded], chance: random.Random, size: int) -> None:
        async def books(batches: list[list[UsageRecorded]]) -> Any:
            await _clear(pool)
            waiting = [event for batch in batches for event in await _charge(pool, batch)]
            early = await read_books(pool)
            await _sell(pool, {"late": 11})
            assert await _charge(pool, waiting) == []
            return early, set(map(msgspec.json.encode, waiting)), await read_books(pool), await _invoices(pool)

        once = loop.run(books([events]))
        again = events + chance.choices(events, k=chance.randint(0, 6))
        chance.shuffle(again)
        batches = [again[start : start + size] for start in range(0, len(again), size)]
        assert loop.run(books(batches)) == once
        held, (early, _, once, billed) = strongest(events), once
        assert {row[0] for row in early.usage} == {event.id for event in events if event.model != "late"}
        assert {row[0] for row in once.usage} == set(held)
        assert sum(row[-1] for row in once.hourly) == sum(row[-1] for row in once.outbox) == once.cost
        assert sum(row[-1] for row in once.monthly) == sum(Decimal(i.usage_usd) for i in billed) * 10**12 == once.cost
        assert sum(row[-5] for row in once.hourly) == sum(row[-2] for row in once.outbox) == len(held)

    try:
        same()
    finally:
        loop.run(opened.__aexit__(None, None, None))
