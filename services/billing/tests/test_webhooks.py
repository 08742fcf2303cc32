"""Stripe's events: each changes what it says once, in whatever order and however often it comes."""

import asyncio
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from stripe_double import Double

from billing import account_store, meter_store, stripe_events, webhook_store, webhooks
from billing.meter_store import Link
from billing.stripe_events import Known, newer
from common.db import Pool, transaction
from common.errors import Conflict, InvalidRequest, NotFound

TENANT = UUID(int=1)
AT = datetime(2026, 11, 10, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    "told",
    [
        [("open", 0), ("failed", 1), ("failed", 2), ("paid", 3)],
        [("open", 0), ("paid", 0)],
        [("open", 0), ("failed", 0), ("paid", 0)],
        [("failed", 1), ("uncollectible", 5), ("paid", 9)],
        [("failed", 1), ("void", 2)],
    ],
)
def test_an_invoice_ends_alike_in_every_order(told: list[Any]) -> None:
    for order in itertools.permutations(told):
        known: Known | None = None
        for status, seconds in order:
            known = newer(known, status, AT + seconds * SECOND) or known
        assert known is not None
        assert (known.status, known.failed_at) == (told[-1][0], None)


def test_grace_begins_with_the_first_failure() -> None:
    first = newer(None, "failed", AT)
    assert first is not None
    again = newer(first, "failed", AT + 5 * SECOND)
    assert again == Known("failed", AT + 5 * SECOND, AT)
    assert newer(again, "failed", AT + SECOND) is None
    assert newer(again, "open", AT + SECOND) is None


@pytest.fixture
def double() -> Double:
    """Makes events; nobody listens to it."""
    return Double()


@pytest.fixture
async def customer(pool: Pool) -> str:
    async with transaction(pool) as connection:
        link = Link(
            tenant_id=TENANT, customer_id="cus_1", subscription_id="sub_1", starts_at=AT, name="t", email="e", carried=0
        )
        await meter_store.add_link(connection, link)
    return "cus_1"


Receive = Callable[[Any], Any]


@pytest.fixture
def receive(pool: Pool) -> Receive:
    async def call(event: Any) -> Any:
        return await webhooks.receive(pool, msgspec.json.encode(event), lambda tenant_id: None)

    return call


@pytest.mark.usefixtures("customer")
async def test_an_event_is_applied_once(double: Double, receive: Receive, pool: Pool) -> None:
    event = double.event("invoice.payment_failed", {"id": "in_1", "customer": "cus_1"})
    assert [await receive(event) for _ in range(3)] == ["applied", None, None]
    assert await pool.fetchval("select count(*) from billing.notices where topic = 'payment.failed'") == 1
    assert await receive(double.event("customer.created", {"id": "cus_9"})) == "ignored"
    async with transaction(pool) as connection:
        assert [seen.id for seen in await webhook_store.seen(connection, "applied", 10)] == [event["id"]]


@pytest.mark.usefixtures("customer")
async def test_a_delivery_beside_one_in_flight_comes_again(double: Double, receive: Receive, pool: Pool) -> None:
    event = double.event("invoice.payment_failed", {"id": "in_1", "customer": "cus_1"})
    async with transaction(pool) as connection:
        assert await webhook_store.alone(connection, event["id"])
        with pytest.raises(Conflict):
            await receive(event)
    assert await receive(event) == "applied"


@pytest.mark.usefixtures("customer")
async def test_what_a_killed_delivery_left_is_nothing(double: Double, receive: Receive, pool: Pool) -> None:
    event = double.event("invoice.payment_failed", {"id": "in_1", "customer": "cus_1"})
    parsed = stripe_events.read(msgspec.json.encode(event))
    connection = await pool.acquire()
    await connection.execute("begin")
    assert await webhook_store.alone(connection, event["id"])
    await webhook_store.add(connection, parsed, "applied", "", None)
    await connection.close()  # the server rolls back
    await pool.release(connection)
    assert await receive(event) == "applied"


@pytest.mark.usefixtures("customer")
async def test_credit_that_was_paid_is_granted_once(double: Double, receive: Receive, pool: Pool) -> None:
    paid = {
        "id": "cs_1",
        "customer": "cus_1",
        "payment_status": "paid",
        "amount_total": 1250,
        "currency": "usd",
        "metadata": {"tenant_id": str(TENANT), "kind": "credit"},
    }
    unpaid = double.event("checkout.session.completed", {**paid, "payment_status": "unpaid"})
    events = [double.event(type, paid) for type in stripe_events.CREDIT_PAID]
    assert await receive(unpaid) == "ignored"
    assert [await receive(event) for event in events] == ["applied", "stale"]
    async with transaction(pool) as connection:
        (grant,) = await account_store.grants(connection, TENANT)
    assert (grant.amount, grant.kind) == (12_500_000_000_000, "paid")


async def test_what_cannot_be_applied_is_parked_and_replayed(double: Double, receive: Receive, pool: Pool) -> None:
    event = double.event("invoice.payment_failed", {"id": "in_1", "customer": "cus_1"})
    broken = double.event("invoice.paid", {"id": 7})
    meter = double.event("v1.billing.meter.error_report_triggered", {})
    for each in (event, broken, meter):
        assert await receive(each) == "parked"
        assert await receive(each) is None
    async with transaction(pool) as connection:
        reasons = {seen.id: seen.reason for seen in await webhook_store.seen(connection, "parked", 10)}
    assert reasons[event["id"]] == "no tenant is the customer cus_1"
    assert "Expected `str`, got `int`" in reasons[broken["id"]]
    assert "meter events" in reasons[meter["id"]]

    async def replay(id: str) -> str:
        return await webhooks.replay(pool, id, lambda tenant_id: None)

    assert await replay(event["id"]) == "parked"
    async with transaction(pool) as connection:
        link = Link(
            tenant_id=TENANT, customer_id="cus_1", subscription_id="sub_1", starts_at=AT, name="t", email="e", carried=0
        )
        await meter_store.add_link(connection, link)
    assert await replay(event["id"]) == "applied"
    for id in (event["id"], "evt_none"):
        with pytest.raises(NotFound):
            await replay(id)


@pytest.mark.parametrize("body", [b"", b"x", b"{}", b'{"id":"","type":"t","created":1}', b'{"id":"e","type":"t"}'])
async def test_what_is_no_event_is_refused(body: bytes, pool: Pool) -> None:
    with pytest.raises(InvalidRequest):
        await webhooks.receive(pool, body, lambda tenant_id: None)


@pytest.mark.usefixtures("customer")
async def test_two_events_of_one_invoice_at_once_end_as_the_later_says(
    double: Double, receive: Receive, pool: Pool
) -> None:
    for number in range(20):
        invoice = {"id": f"in_{number}", "customer": "cus_1"}
        failed = double.event("invoice.payment_failed", invoice, int(AT.timestamp()))
        paid = double.event("invoice.paid", invoice, int(AT.timestamp()) + number % 2)
        await asyncio.gather(receive(failed), receive(paid))
    statuses = await pool.fetch("select distinct status, failed_at from billing.stripe_invoices")
    assert [tuple(row) for row in statuses] == [("paid", None)]
