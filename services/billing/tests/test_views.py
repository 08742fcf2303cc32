"""What admins and key holders are shown, and that all of it sums to the ledger."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import combinations
from typing import Any
from uuid import UUID

import pytest

from billing import ledger
from common.db import Pool

HOUR = timedelta(hours=1)
COST = 12 * 100_000 + 5 * 10_000 + 64 * 400_000
TENANT, OTHER = UUID(int=1), UUID(int=7)
FIGURES = ("requests", "input_tokens", "cached_tokens", "output_tokens")

pytestmark = pytest.mark.usefixtures("service")


@pytest.fixture
async def history(pool: Pool, put_price: Any, record: Any) -> list[Any]:
    """60 records of two tenants, three keys and two models in three days, the other tenant's a third of them."""
    await put_price(since=timedelta(days=3))
    await put_price("other", since=timedelta(days=3))
    now = datetime.now(UTC)
    events = [
        record(
            tenant_id=OTHER if number % 3 == 0 else TENANT,
            environment_id=UUID(int=number % 2),
            api_key_id=UUID(int=10 + number % 3),
            model="other" if number % 4 else "demo-8b",
            started_at=now - number * HOUR / 3,
            output_tokens=number,
        )
        for number in range(60)
    ]
    await ledger.record(pool, events)
    return events


async def test_every_grouping_sums_to_the_ledger(history: list[Any], books: Any, ask: Any) -> None:
    cost = (await books()).cost
    names = ("model", "key", "environment", "day", "hour")
    fields = dict(zip(names, ("model", "api_key_id", "environment_id", "day", "hour"), strict=True))
    for size in range(6):
        for chosen in combinations(names, size):
            status, answer = await ask("GET", "/admin/usage", group_by=",".join(chosen))
            assert status == 200
            for row in answer["rows"]:
                assert set(row) == {*FIGURES, "cost_usd", *(fields[name] for name in chosen)}
            for figure in FIGURES:
                assert sum(row[figure] for row in answer["rows"]) == answer["total"][figure]
            assert sum(Fraction(row["cost_usd"]) for row in answer["rows"]) == Fraction(cost, 10**12)
            assert Fraction(answer["total"]["cost_usd"]) == Fraction(cost, 10**12)
            assert answer["total"]["output_tokens"] == sum(event.output_tokens for event in history)


async def test_tenants_keys_and_times_are_told_apart(history: list[Any], ask: Any) -> None:
    for tenant in (TENANT, OTHER, UUID(int=99)):
        _, answer = await ask("GET", "/admin/usage", tenant_id=tenant, group_by="key")
        assert answer["total"]["requests"] == sum(event.tenant_id == tenant for event in history)
    middle = history[30].started_at
    _, before = await ask("GET", "/admin/usage", to=middle.replace(minute=0, second=0, microsecond=0).isoformat())
    _, after = await ask("GET", "/admin/usage", from_=middle.isoformat())
    assert 0 < before["total"]["requests"] < 60
    assert before["total"]["requests"] + after["total"]["requests"] == 60


async def test_a_key_sees_its_own_days_and_models(history: list[Any], ask: Any) -> None:
    key = UUID(int=11)
    status, answer = await ask("GET", "/v1/usage", api_key_id=key)
    assert status == 200
    mine = [event for event in history if event.api_key_id == key]
    assert {(row["day"], row["model"]) for row in answer["rows"]} == {
        (f"{event.started_at:%Y-%m-%d}", event.model) for event in mine
    }
    assert answer["total"]["requests"] == len(mine)
    assert (await ask("GET", "/v1/usage"))[0] == 400


async def test_records_page_newest_first_without_gap_or_repetition(history: list[Any], ask: Any) -> None:
    for filters, wanted in (
        ({}, history),
        ({"tenant_id": TENANT}, [event for event in history if event.tenant_id == TENANT]),
        ({"api_key_id": UUID(int=10)}, [event for event in history if event.api_key_id == UUID(int=10)]),
        ({"api_key_id": UUID(int=10), "tenant_id": TENANT}, []),
    ):
        found: list[Any] = []
        page: dict[str, Any] = dict(filters)
        while True:
            status, answer = await ask("GET", "/admin/usage/records", limit=7, **page)
            assert status == 200
            found += answer["records"]
            if answer["next_cursor"] is None:
                break
            page["cursor"] = answer["next_cursor"]
        assert [record["id"] for record in found] == sorted((str(event.id) for event in wanted), reverse=True)
    _, answer = await ask("GET", "/admin/usage/records", limit=1)
    (record,) = answer["records"]
    newest = max(history, key=lambda event: event.id)
    assert record["cost_usd"] == f"0.{COST + (newest.output_tokens - 64) * 400_000:012d}".rstrip("0")
    assert (record["model"], record["first_token_at"][:10]) == (newest.model, f"{newest.first_token_at:%Y-%m-%d}")


async def test_an_empty_parameter_is_one_that_is_not_given(history: list[Any], ask: Any) -> None:
    for path in ("/admin/usage", "/admin/usage/records"):
        _, all = await ask("GET", path)
        assert await ask("GET", path, tenant_id="", api_key_id="") == (200, all)
    assert (await ask("GET", "/admin/usage", group_by="", from_="", to=""))[0] == 200


async def test_what_is_too_large_for_an_answer_is_refused_or_paged(
    pool: Pool, put_price: Any, record: Any, ask: Any
) -> None:
    await put_price()
    wide = {"endpoint": "\1" * 256, "region": "\2" * 256, "node_id": "\3" * 256}  # 6 bytes each in JSON
    events = [record(api_key_id=UUID(int=number), **wide) for number in range(300)]
    await ledger.record(pool, events)
    found: list[Any] = []
    query: dict[str, Any] = {"limit": 1000}
    while query.get("cursor", "") is not None:
        status, answer = await ask("GET", "/admin/usage/records", **query)
        assert status == 200
        found += answer["records"]
        query["cursor"] = answer["next_cursor"]
    assert [record["id"] for record in found] == sorted((str(event.id) for event in events), reverse=True)
    await ledger.record(pool, [record(api_key_id=UUID(int=number)) for number in range(12_000)])
    status, answer = await ask("GET", "/admin/usage", group_by="key")
    assert (status, answer["error"]["param"]) == (400, "group_by")
    assert "api_key_id" in answer["error"]["message"]
    assert (await ask("GET", "/admin/usage"))[1]["total"]["requests"] == 12_300


@pytest.mark.parametrize(
    ("path", "query", "param"),
    [
        ("/admin/usage", {"group_by": "model,colour"}, "group_by"),
        ("/admin/usage", {"tenant_id": "x"}, "tenant_id"),
        ("/admin/usage", {"from_": "yesterday"}, "from"),
        ("/admin/usage", {"from_": "2026-02-02", "to": "2026-02-01"}, "to"),
        ("/admin/usage/records", {"limit": 0}, "limit"),
        ("/admin/usage/records", {"cursor": "x"}, "cursor"),
        ("/admin/dead-letters", {"cursor": "x"}, "cursor"),
        ("/v1/usage", {}, "api_key_id"),
        ("/v1/usage", {"api_key_id": ""}, "api_key_id"),
        ("/admin/usage", {"tenant": TENANT}, "tenant"),
        ("/admin/usage/records", {"tenant": ""}, "tenant"),
        ("/admin/prices", {"region": "eu"}, "region"),
    ],
)
async def test_a_bad_query_names_its_parameter(ask: Any, path: str, query: dict[str, Any], param: str) -> None:
    status, answer = await ask("GET", path, **query)
    assert (status, answer["error"]["param"]) == (400, param)
