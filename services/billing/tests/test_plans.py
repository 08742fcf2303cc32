"""Plans: who is on which from when, what it costs them, and that nothing charged is ever priced anew."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID

import pytest

from billing import ledger, plans, prices, store
from billing.entitlement import HOUR, hour_of
from billing.settings import Settings
from common.db import Pool, transaction
from common.errors import InvalidRequest
from common.events import UsageRecorded
from common.ids import new_id
from common.plans import Plan

Record = Callable[..., UsageRecorded]
PutPrice = Callable[..., Awaitable[None]]
Ask = Callable[..., Awaitable[tuple[int, Any]]]
TENANT = UUID(int=1)
T = f"/admin/tenants/{TENANT}"
COST = 12 * 100_000 + 5 * 10_000 + 64 * 400_000


async def assign(pool: Pool, plan: Plan, **fields: Any) -> Any:
    values = {"id": new_id(), "tenant_id": TENANT, "units": 0, "effective_from": None, "by": "t"}
    return await plans.assign(pool, plan=plan, **{**values, **fields})


async def test_code_and_database_name_the_same_plans(pool: Pool) -> None:
    for table in ("plans", "assignments", "prices"):
        text = await pool.fetchval(
            """
            select pg_get_constraintdef(oid) from pg_constraint
            where conrelid = $1::regclass and contype = 'c' and pg_get_constraintdef(oid) like '%pay_as_you_go%'
            """,
            f"billing.{table}",
        )
        found = {part for part in text.split("'")[1::2] if part}
        assert found == set(get_args(Plan))


async def test_a_plans_own_price_comes_before_any_other(pool: Pool, put_price: PutPrice, record: Record) -> None:
    await put_price(region="eu")
    await put_price()
    await prices.put(
        pool, id=new_id(), model="demo-8b", region="", plan="prepaid", input=1, cached_input=1, output=1,
        effective_from=None, created_by="t",
    )  # fmt: skip
    await assign(pool, "prepaid")
    at = datetime.now(UTC)
    mine, theirs = record(region="eu", started_at=at), record(tenant_id=UUID(int=2), started_at=at)
    await ledger.record(pool, [mine, theirs])
    async with transaction(pool) as connection:
        costs = {
            entry.event.id: entry.cost
            for entry in await store.records(
                connection, tenant_id=None, api_key_id=None, before=UUID(int=2**128 - 1), limit=9
            )
        }
    assert costs == {mine.id: 17 + 64, theirs.id: COST}
    # an hour that was charged by one plan is not charged by another on a replay
    moved = await assign(pool, "pay_as_you_go")
    assert moved.effective_from == hour_of(at) + HOUR
    with pytest.raises(InvalidRequest, match="effective_from is before"):
        await assign(pool, "free", effective_from=hour_of(at))


@pytest.mark.parametrize(
    ("known", "new", "allowed"),
    [
        (("", ""), ("", "free"), False),
        (("eu", ""), ("", "free"), False),
        (("", ""), ("eu", "free"), False),
        (("us", ""), ("eu", "free"), True),
        (("", "prepaid"), ("", "free"), True),
        (("eu", "free"), ("", "free"), True),
        (("", "free"), ("", ""), True),
    ],
)
async def test_a_price_of_a_plan_may_not_begin_where_others_were_charged(
    pool: Pool, known: tuple[str, Any], new: tuple[str, Any], allowed: bool
) -> None:
    async def put(of: tuple[str, Any], since: timedelta) -> None:
        await prices.put(
            pool, id=new_id(), model="m", region=of[0], plan=of[1], input=1, cached_input=1, output=1,
            effective_from=datetime.now(UTC) - since, created_by="t",
        )  # fmt: skip

    await put(known, timedelta(days=20))
    if allowed:
        await put(new, timedelta(days=10))
    else:
        with pytest.raises(InvalidRequest):
            await put(new, timedelta(days=10))


async def test_the_balance_shows_what_pays_and_what_is_due(
    service: Settings, ask: Ask, pool: Pool, put_price: PutPrice, record: Record
) -> None:
    await put_price()
    status, offered = await ask("PUT", "/admin/plans/pay_as_you_go", {"free_monthly_usd": "0.000001"})
    assert (status, offered["free_monthly_usd"]) == (200, "0.000001")
    for kind, amount in (("paid", "0.000002"), ("promotional", "0.000003")):
        body = {"amount_usd": amount, "reason": "r", "kind": kind}
        assert (await ask("POST", f"{T}/credits", body))[0] == 201
    await ledger.record(pool, [record()])
    _, balance = await ask("GET", f"{T}/balance")
    assert [(line["item"], line["amount_usd"]) for line in balance["lines"]] == [
        ("usage", "0.00002685"), ("free", "-0.000001"), ("promotional", "-0.000003"), ("paid", "-0.000002"),
    ]  # fmt: skip
    assert balance["due_usd"] == "0.00002085"
    assert (balance["credit_usd"], balance["free_usd"], balance["spent_usd"]) == ("0.00", "0.00", "0.00002685")
    _, credits = await ask("GET", f"{T}/credits")
    assert [(c["kind"], c["remaining_usd"], c["expired"]) for c in credits["credits"]] == [
        ("promotional", "0.00", False),
        ("paid", "0.00", False),
    ]


async def test_a_tenant_is_put_on_a_plan_and_its_past_stays(service: Settings, ask: Ask) -> None:
    assert (await ask("GET", f"{T}/plan"))[1] == {"plan": "pay_as_you_go", "units": 0, "history": []}
    status, first = await ask("PUT", f"{T}/plan", {"plan": "committed", "units": 100})
    assert (status, first["plan"], first["units"]) == (200, "committed", 100)
    assert (await ask("PUT", f"{T}/plan", {"plan": "committed", "units": 100}))[1] == first, "the same again"
    later = (hour_of(datetime.now(UTC)) + 48 * HOUR).isoformat()
    await ask("PUT", f"{T}/plan", {"plan": "free", "effective_from": later})
    _, told = await ask("GET", f"{T}/plan")
    assert (told["plan"], [one["plan"] for one in told["history"]]) == ("committed", ["committed", "free"])
    for body, param in [
        ({"plan": "gold"}, "plan"),
        ({"plan": "committed"}, "units"),
        ({"plan": "free", "units": 3}, "units"),
        ({"plan": "free", "effective_from": "2100-01-01T00:30:00"}, "effective_from"),
        ({"plan": "free", "effective_from": "2020-01-01"}, "effective_from"),
    ]:
        status, answer = await ask("PUT", f"{T}/plan", body)
        assert (status, answer["error"]["param"]) == (400, param)
    assert (await ask("PUT", "/admin/plans/gold", {}))[0] == 404
    assert (await ask("GET", "/admin/tenants/x/plan"))[0] == 404
