"""Invoices: exact line by line, rounded once, the same from the same ledger, safe to show and to open."""

import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from billing import account_store, invoice_pages, invoices, ledger
from billing.changes import Sums
from billing.invoicing import Adjustment, Invoice, Part, invoice, status
from billing.money import usd
from billing.pricing import Price
from common.db import Pool, transaction
from common.events import UsageRecorded

Record = Callable[..., UsageRecorded]
TENANT = UUID(int=1)
MONTH = datetime(2026, 11, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 24, tzinfo=UTC)


def a_price(number: int = 1, **changes: Any) -> Price:
    values: dict[str, Any] = {
        "id": UUID(int=number), "model": "m", "input": 100_000, "cached_input": 10_000, "output": 400_000,
        "effective_from": MONTH + timedelta(days=number), "created_at": MONTH, "created_by": "test",
    }  # fmt: skip
    return Price(**values | changes)


def a_part(price: Price, input: int, cached: int, output: int, **changes: Any) -> Part:
    cost = (input - cached) * price.input + cached * price.cached_input + output * price.output
    values: dict[str, Any] = {
        "model": price.model, "region": "", "price_id": price.id, "sums": Sums(1, input, cached, output, cost)
    }  # fmt: skip
    return Part(**values | changes)


def an_invoice(*parts: Part, prices: tuple[Price, ...] = (a_price(),), **more: Any) -> Invoice:
    return invoice(TENANT, MONTH, parts, {price.id: price for price in prices}, now=NOW, **more)


def test_each_kind_has_an_exact_line() -> None:
    found = an_invoice(a_part(a_price(), 17, 5, 64))
    assert [(line.kind, line.tokens, line.usd_per_million, line.amount_usd) for line in found.lines] == [
        ("input", 12, "0.10", "0.0000012"),
        ("cached_input", 5, "0.01", "0.00000005"),
        ("output", 64, "0.40", "0.0000256"),
    ]
    assert (found.usage_usd, found.due_usd) == ("0.00002685", "0.00")


@pytest.mark.parametrize(
    ("tokens", "adjustment", "due"),
    [
        (12_500, 0, "0.01"),  # half a cent
        (12_499, 0, "0.00"),
        (2_500_000, 0, "1.00"),
        (2_500_000, -(10**12), "0.00"),
        (2_500_000, -(10**11), "0.90"),
        (0, 5 * 10**12, "5.00"),
    ],
)
def test_what_is_due_is_rounded_once_to_a_cent(tokens: int, adjustment: int, due: str) -> None:
    adjustments = [Adjustment(description="credit", amount=adjustment)] if adjustment else []
    assert an_invoice(a_part(a_price(), 0, 0, tokens), adjustments=adjustments).due_usd == due


def test_the_order_of_the_parts_does_not_matter_and_each_price_has_its_own_lines() -> None:
    prices = a_price(1), a_price(2, output=500_000), a_price(3, model="a")
    parts = [a_part(price, 10, 0, 10) for price in prices]
    parts.append(a_part(prices[0], 1, 0, 0, region="eu"))
    found = an_invoice(*parts, prices=prices)
    assert msgspec.json.encode(found) == msgspec.json.encode(an_invoice(*reversed(parts), prices=prices))
    assert [(line.model, line.region, line.kind, line.usd_per_million) for line in found.lines] == [
        ("a", "", "input", "0.10"), ("a", "", "output", "0.40"),
        ("m", "", "input", "0.10"), ("m", "", "output", "0.40"),
        ("m", "", "input", "0.10"), ("m", "", "output", "0.50"),
        ("m", "eu", "input", "0.10"),
    ]  # fmt: skip


def test_a_part_that_does_not_cost_what_its_price_says_makes_no_invoice() -> None:
    part = a_part(a_price(), 1, 0, 1)
    wrong = msgspec.structs.replace(part, sums=msgspec.structs.replace(part.sums, cost=1))
    with pytest.raises(ValueError, match="are not what price"):
        an_invoice(wrong)


def test_a_month_is_final_when_late_records_have_had_their_time() -> None:
    moments = NOW, datetime(2026, 12, 1, tzinfo=UTC), datetime(2026, 12, 4, tzinfo=UTC)
    assert [status(MONTH, at) for at in moments] == ["open", "provisional", "final"]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "  =1", "|calc", "%0"])
def test_no_cell_of_the_table_is_a_formula(name: str) -> None:
    price = a_price(model=name)
    text = invoice_pages.csv_of(
        an_invoice(a_part(price, 5, 0, 0), prices=(price,), adjustments=[Adjustment(description=name, amount=-(10**6))])
    )
    usage, adjustment, due = csv.DictReader(io.StringIO(text))
    assert (usage["model"], adjustment["description"], adjustment["amount_usd"]) == (
        f"'{name}",
        f"'{name}",
        "-0.000001",
    )
    assert (due["type"], due["amount_usd"]) == ("due", "0.00")


def test_the_page_shows_names_of_others_as_text() -> None:
    price = a_price(model="<script>alert(1)</script>")
    page = invoice_pages.html(an_invoice(a_part(price, 5, 0, 0, region='"><img src=x>'), prices=(price,)))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page
    assert "<img" not in page


async def test_an_invoice_sums_to_the_ledger(pool: Pool, put_price: Any, record: Record, books: Any) -> None:
    await put_price(since=timedelta(days=30))
    await put_price("dear", region="eu", since=timedelta(days=30))
    now = datetime.now(UTC)
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    events = [record(), record(output_tokens=0), record(model="dear", region="eu"), record(tenant_id=UUID(int=9))]
    lost = msgspec.structs.replace(events[0], outcome="gateway_lost", output_tokens=1, model="dear", region="eu")
    await ledger.record(pool, [lost, *events[1:]])
    await ledger.record(pool, events)
    found = await invoices.of_month(pool, TENANT, month, now)
    assert (found.requests, [(line.model, line.kind, line.tokens) for line in found.lines]) == (3, [
        ("dear", "input", 12), ("dear", "cached_input", 5), ("dear", "output", 64),
        ("demo-8b", "input", 24), ("demo-8b", "cached_input", 10), ("demo-8b", "output", 64),
    ])  # fmt: skip
    cost = sum(row[-1] for row in (await books()).usage if row[2] == TENANT)
    assert found.usage_usd == usd(cost)
    assert await invoices.of_tenant(pool, TENANT, now, 5, now) == [found]

    await pool.execute("delete from billing.usage_monthly where model = 'dear'")
    assert await invoices.of_month(pool, TENANT, month, now) == found, "what another version left out is summed again"


async def test_plans_and_credits_reduce_what_is_due(pool: Pool, put_price: Any, record: Record) -> None:
    await put_price()
    now = datetime.now(UTC)
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    async with transaction(pool) as connection:
        await account_store.add_credit(
            connection, id=UUID(int=1), tenant_id=TENANT, amount=10**6, reason="=welcome", expires_at=None, by="test"
        )
    await ledger.record(pool, [record(started_at=now, output_tokens=10_000_000)])
    found = await invoices.of_month(pool, TENANT, month, now + timedelta(seconds=1))
    assert [(one.description, one.amount_usd) for one in found.adjustments] == [
        ("Prepaid credit: =welcome", "-0.000001")
    ]
    assert (found.usage_usd, found.due_usd) == ("4.00000125", "4.00")
    assert "Prepaid credit: =welcome" in invoice_pages.html(found)


@pytest.mark.usefixtures("service")
async def test_an_invoice_is_given_in_three_forms(
    put_price: Any, record: Record, send: Any, settled: Any, ask: Any
) -> None:
    await put_price()
    await send(record())
    await settled()
    month = f"{datetime.now(UTC):%Y-%m}"
    status, listed = await ask("GET", "/admin/invoices", tenant_id=TENANT)
    assert (status, len(listed["invoices"]), listed["next_cursor"]) == (200, 1, None)
    status, one = await ask("GET", "/admin/invoices", tenant_id=TENANT, month=month)
    assert one == listed
    status, page = await ask("GET", "/admin/invoices", tenant_id=TENANT, month=month, format="html")
    assert (status, page.startswith("<!doctype html>")) == (200, True)
    status, table = await ask("GET", "/admin/invoices", tenant_id=TENANT, month=month, format="csv")
    assert len(table.splitlines()) == 5
    status, none = await ask("GET", "/admin/invoices", tenant_id=TENANT, month="2020-01")
    assert (none["invoices"][0]["lines"], none["invoices"][0]["due_usd"]) == ([], "0.00")
    for wrong, param in (({"month": "2026-13"}, "month"), ({"format": "pdf"}, "format"), ({"format": "html"}, "month")):
        status, answer = await ask("GET", "/admin/invoices", tenant_id=TENANT, **wrong)
        assert (status, answer["error"]["param"]) == (400, param)
