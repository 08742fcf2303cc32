"""The ledger against Postgres: each request once, whatever comes in whatever order."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from billing import ledger
from billing.ledger import Unpriced
from common.db import Pool
from common.events import UsageRecorded

Record = Callable[..., UsageRecorded]
Read = Callable[[], Awaitable[Any]]
COST = 12 * 100_000 + 5 * 10_000 + 64 * 400_000


async def test_a_record_is_charged_to_the_pico_dollar(pool: Pool, put_price: Any, record: Record, books: Read) -> None:
    await put_price()
    event = record()
    assert await ledger.record(pool, [event]) == 1
    found = await books()
    assert found.usage[0][:-2] == msgspec.structs.astuple(event)
    assert found.cost == COST
    assert found.hourly[0][-5:] == (1, 17, 5, 64, COST)
    assert found.outbox[0][-2:] == (1, COST)


async def test_redelivered_usage_is_charged_once(pool: Pool, put_price: Any, record: Record, books: Read) -> None:
    await put_price()
    events = [record() for _ in range(50)]
    await ledger.record(pool, events)
    before = await books()
    assert await ledger.record(pool, events[10:]) == 0
    assert await ledger.record(pool, events + events) == 0
    assert await books() == before
    assert before.cost == 50 * COST


async def test_a_true_record_replaces_the_reapers_and_never_the_other_way(
    pool: Pool, put_price: Any, record: Record, books: Read
) -> None:
    await put_price()
    true = record()
    lost = msgspec.structs.replace(true, outcome="gateway_lost", output_tokens=100, ended_at=true.ended_at)
    await ledger.record(pool, [lost])
    assert (await books()).cost == COST + 36 * 400_000
    assert await ledger.record(pool, [true]) == 1
    settled = await books()
    assert (settled.cost, settled.outbox[0][-2:], settled.hourly[0][-5:]) == (COST, (1, COST), (1, 17, 5, 64, COST))
    assert await ledger.record(pool, [lost]) == 0
    assert await books() == settled


async def test_a_replacement_moves_to_its_own_hour_and_model(
    pool: Pool, put_price: Any, record: Record, books: Read
) -> None:
    await put_price(since=timedelta(hours=30))
    await put_price("other", since=timedelta(hours=30))
    true = record()
    lost = msgspec.structs.replace(
        true, outcome="gateway_lost", model="other", started_at=true.started_at - timedelta(hours=3)
    )
    await ledger.record(pool, [lost])
    await ledger.record(pool, [true])
    found = await books()
    assert [row[-5:] for row in found.hourly] == [(1, 17, 5, 64, COST)]
    assert [row[-2:] for row in found.outbox] == [(1, COST)]


async def test_without_a_price_nothing_of_the_batch_is_charged(
    pool: Pool, put_price: Any, record: Record, books: Read
) -> None:
    await put_price()
    unknown = record(model="new")
    early = record(started_at=record().started_at - timedelta(hours=2))
    with pytest.raises(Unpriced) as raised:
        await ledger.record(pool, [record(), unknown, early])
    assert raised.value.reasons == {
        1: f"no price for model new in force at {unknown.started_at.isoformat()}",
        2: f"no price for model demo-8b in force at {early.started_at.isoformat()}",
    }
    assert (await books()).usage == []


async def test_a_record_without_a_price_does_not_keep_another_of_its_id_from_being_charged(
    pool: Pool, put_price: Any, record: Record, books: Read
) -> None:
    await put_price()
    lost = record(outcome="gateway_lost")
    winner = msgspec.structs.replace(lost, outcome="completed", model="new", output_tokens=90)
    with pytest.raises(Unpriced) as raised:
        await ledger.record(pool, [winner, lost])
    assert list(raised.value.reasons) == [0]
    assert await ledger.record(pool, [lost]) == 1
    await put_price("new")
    assert await ledger.record(pool, [winner]) == 1
    assert (await books()).cost == COST + 26 * 400_000


async def test_concurrent_writers_of_the_same_records_neither_deadlock_nor_double(
    pool: Pool, put_price: Any, record: Record, books: Read
) -> None:
    await put_price()
    events = [record(api_key_id=record().id) for _ in range(300)]
    lost = [msgspec.structs.replace(event, outcome="gateway_lost", output_tokens=90) for event in events]

    async def write(seed: int) -> None:
        mixed = random.Random(seed).sample(events + lost, 600)
        for start in range(0, 600, 100):
            await ledger.record(pool, mixed[start : start + 100])

    await asyncio.gather(*map(write, range(8)))
    found = await books()
    assert found.cost == 300 * COST
    assert sum(row[-1] for row in found.hourly) == sum(row[-1] for row in found.outbox) == 300 * COST
    assert sum(row[-2] for row in found.outbox) == 300
