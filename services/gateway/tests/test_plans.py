"""A tenant's plan: which ones there are, and by which price a request is held."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID

import pytest

from common import db
from common.budgets import Account, PlanFrom, Price, PriceList
from common.plans import Plan
from gateway.budget import Budgets
from gateway.prices import Prices

NOW = datetime(2026, 11, 24, tzinfo=UTC)
TENANT = UUID(int=1)


async def test_code_and_database_name_the_same_plans(postgres_dsn: str) -> None:
    async with db.open_pool(postgres_dsn, "test") as pool:
        await db.migrate(pool, "gateway")
        text = await pool.fetchval(
            "select pg_get_constraintdef(oid) from pg_constraint where conname = 'tenants_plan_check'"
        )
    assert set(text.split("'")[1::2]) == set(get_args(Plan))


def a_price(number: int, region: str, plan: Any) -> Price:
    return Price(
        model="m", region=region, plan=plan, input=number, cached_input=0, output=0, effective_from=NOW
    )  # fmt: skip


@pytest.mark.parametrize(
    ("listed", "region", "plan", "expected"),
    [
        ([("", ""), ("eu", "")], "eu", "free", 2),
        ([("", ""), ("eu", ""), ("", "free")], "eu", "free", 3),
        ([("", "free"), ("eu", "free"), ("", "")], "eu", "free", 2),
        ([("", ""), ("eu", ""), ("", "free")], "eu", "prepaid", 2),
        ([("", ""), ("eu", ""), ("", "free")], "us", "prepaid", 1),
        ([("eu", "free")], "us", "free", None),
    ],
)
def test_the_plans_price_comes_before_the_regions(
    listed: list[tuple[str, Any]], region: str, plan: Plan, expected: int | None
) -> None:
    prices = Prices()
    prices.replace(PriceList(tuple(a_price(at, *of) for at, of in enumerate(listed, 1))))
    found = prices.in_force("m", region, NOW, plan)
    assert (found.input if found else None) == expected


def test_a_plan_to_come_holds_from_its_hour_on() -> None:
    nothing: Any = None  # neither Redis nor NATS is asked
    budgets = Budgets(nothing, nothing)
    assert budgets.plan(TENANT, NOW) == "pay_as_you_go"
    later = (PlanFrom("prepaid", NOW + timedelta(hours=1)), PlanFrom("free", NOW + timedelta(hours=2)))
    budgets._replace(Account(tenant_id=TENANT, version=1, month="2026-11", plan="committed", later=later))
    hours = [budgets.plan(TENANT, NOW + timedelta(minutes=minutes)) for minutes in (0, 59, 60, 119, 120)]
    assert hours == ["committed", "committed", "prepaid", "prepaid", "free"]
