"""Budgets and credits: what is told of a tenant is one snapshot of the ledger; later ones include earlier ones."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from billing import account_store, ledger, plans
from billing.accounts import account, told
from billing.pricing import Price
from common.budgets import Account
from common.db import Pool, transaction
from common.events import UsageRecorded
from common.ids import new_id

NOW = datetime(2026, 6, 1, tzinfo=UTC)
TENANT = UUID(int=1)
Record = Callable[..., UsageRecorded]
PutPrice = Callable[..., Awaitable[None]]


def test_prices_in_force_and_to_come_are_told() -> None:
    def a_price(days: int, region: str = "") -> Price:
        return Price(
            id=new_id(), model="m", region=region, input=days + 100, cached_input=0, output=0,
            effective_from=NOW + timedelta(days=days), created_at=NOW, created_by="test",
        )  # fmt: skip

    prices = [a_price(-30), a_price(-20), a_price(-9, "eu"), a_price(0), a_price(5)]
    assert [price.input for price in told(prices, NOW).prices] == [80, 91, 100, 105]


async def look(pool: Pool, *ids: UUID) -> tuple[Account, list[UUID]]:
    async with transaction(pool) as connection:
        sheet = await account_store.sheet(connection, TENANT, ids)
    return account(TENANT, sheet), sheet.recorded


async def test_an_account_is_what_the_ledger_says(pool: Pool, put_price: PutPrice, record: Record) -> None:
    await put_price()
    first, second = record(api_key_id=UUID(int=3)), record(api_key_id=UUID(int=4))
    await ledger.record(pool, [first])
    cost = 12 * 100_000 + 5 * 10_000 + 64 * 400_000
    async with transaction(pool) as connection:
        await account_store.put_budget(connection, TENANT, 10**12, True, "test")
        assert await account_store.add_credit(
            connection, id=new_id(), tenant_id=TENANT, amount=10**9, reason="r", expires_at=None, by="test"
        )
    await plans.assign(pool, id=new_id(), tenant_id=TENANT, plan="prepaid", units=0, effective_from=None, by="test")
    before, recorded = await look(pool, first.id, second.id)
    assert recorded == [first.id]
    assert before.keys == {first.api_key_id: cost}
    # a credit pays for all of the hour in which it was granted
    assert [(b.name, b.limit, b.spent, b.hard) for b in before.budgets] == [
        ("tenant", 10**12, cost, True),
        ("credit", 10**9, cost, True),
    ]
    await ledger.record(pool, [first, second])
    after, recorded = await look(pool, first.id, second.id)
    assert set(recorded) == {first.id, second.id}
    assert after.version > before.version
    assert [budget.spent for budget in after.budgets] == [2 * cost, 2 * cost]
    async with transaction(pool) as connection:
        await account_store.put_budget(connection, TENANT, None, False, "test")
    assert [budget.name for budget in (await look(pool))[0].budgets] == ["credit"]


async def test_a_higher_version_has_seen_all_that_a_lower_one_has(
    pool: Pool, put_price: PutPrice, record: Record
) -> None:
    await put_price()
    events = [record() for _ in range(40)]
    seen: list[tuple[int, set[UUID], int]] = []

    async def watch() -> None:
        for _ in range(15):
            told, recorded = await look(pool, *[event.id for event in events])
            seen.append((told.version, set(recorded), sum(told.keys.values())))

    async def charge() -> None:
        for event in events:
            await ledger.record(pool, [event])

    await asyncio.gather(watch(), watch(), charge())
    cost = 12 * 100_000 + 5 * 10_000 + 64 * 400_000
    seen.sort(key=lambda one: one[0])
    assert len({version for version, *_ in seen}) == len(seen)
    known: set[UUID] = set()
    for _, recorded, spent in seen:
        assert recorded >= known
        assert spent == len(recorded) * cost, "the sum and the ids are of one moment"
        known = recorded


async def test_the_version_rises_past_that_of_a_database_that_was_lost(pool: Pool) -> None:
    told: Any = (await look(pool))[0]
    assert told.version > datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000
