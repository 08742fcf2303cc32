"""Stripe's webhooks through the gateway to two billing processes, each three times and out of order: applied once."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import pytest
import pytest_asyncio
import stripe_double
from integration.office import Office
from integration.shop import until
from stripe_double import Double
from stripe_double.signing import header

from stack.fixtures import MakeStack
from stack.stack import Stack

OLD, NEW = "whsec_old", "whsec_new"
PAGES = {"success_url": "https://shop.example/yes", "cancel_url": "https://shop.example/no"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def double() -> AsyncIterator[Double]:
    async with stripe_double.serve() as double:
        yield double


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def paid_stack(make_stack_of_module: MakeStack, double: Double) -> Stack:
    env = {
        "STRIPE_API_KEY": "sk_test_1",
        "STRIPE_API_BASE": double.url,
        "STRIPE_WEBHOOK_SECRET": f"{OLD},{NEW}",
        "STRIPE_GRACE_DAYS": "0",
        "STRIPE_INTERVAL": "0.2",
    }
    return await make_stack_of_module(
        services=("billing", "gateway"), simulators=0, replicas={"billing": 2}, service_env=env
    )


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def tenant(stack: Stack, double: Double) -> tuple[Office, str]:
    """And its customer, which is made because the tenant is."""
    office = await Office.open(stack)

    async def subscribed() -> str | None:
        found = [s for s in double.of("subscription").values() if s["metadata"]["tenant_id"] == office.tenant_id]
        return found[0]["customer"] if found else None

    return office, await until(subscribed, bool, deadline=60)


def url(stack: Stack) -> str:
    return f"{stack.gateway_url}/webhooks/stripe"


async def test_each_event_three_times_and_out_of_order(paid_stack: Stack, double: Double) -> None:
    office, customer = await tenant(paid_stack, double)
    now = int(double.now)
    events: list[Any] = []
    for number in range(20):
        invoice = {"id": f"in_{customer}_{number}", "customer": customer}
        kinds = ["invoice.finalized", "invoice.payment_failed", "invoice.payment_failed", "invoice.paid"]
        events += [double.event(kind, invoice, now - 10 + step) for step, kind in enumerate(kinds)]
        session = {
            "id": f"cs_{customer}_{number}",
            "customer": customer,
            "payment_status": "paid",
            "amount_total": 100 + number,
            "currency": "usd",
            "metadata": {"tenant_id": office.tenant_id, "kind": "credit"},
        }
        events += [double.event(kind, session) for kind in ("checkout.session.completed", "customer.updated")]
    statuses = await stripe_double.deliver(url(paid_stack), NEW, events, copies=3, seed=5)
    assert statuses.count(200) == 3 * len(events)
    assert set(statuses) <= {200, 409}
    connection = await asyncpg.connect(paid_stack.postgres_dsn)
    try:
        rows = await connection.fetch(
            "select status, count(*) from billing.stripe_invoices where invoice_id like $1 group by 1",
            f"in_{customer}%",
        )
        assert [tuple(row) for row in rows] == [("paid", 20)]
        seen = await connection.fetchval("select count(*) from billing.stripe_events")
        assert seen == len(events)
    finally:
        await connection.close()
    balance = await office.admin("GET", f"/admin/tenants/{office.tenant_id}/balance")
    assert balance["credit_usd"] == "21.90"

    async def mirrored() -> int:
        return sum(g["amount"]["monetary"]["value"] for g in double.of("credit_grant").values())

    await until(mirrored, lambda cents: cents == 2190, deadline=60)


async def status(office: Office) -> tuple[str, list[str]]:
    found = await office.admin("GET", f"/admin/tenants/{office.tenant_id}")
    return found["status"], found["suspended_for"]


async def test_who_does_not_pay_is_suspended_and_served_again_once_paid(paid_stack: Stack, double: Double) -> None:
    office, customer = await tenant(paid_stack, double)
    other, others_customer = await tenant(paid_stack, double)
    created = await office.admin("POST", "/admin/api-keys", {"tenant_id": office.tenant_id, "name": "k"})

    async def models() -> int:
        return (await office.call("GET", "/v1/models", token=created["key"])).status

    assert await models() == 200
    await other.admin("PATCH", f"/admin/tenants/{other.tenant_id}", {"status": "suspended"})
    invoices = {c: {"id": f"in_{c}_due", "customer": c} for c in (customer, others_customer)}
    failed = [double.event("invoice.payment_failed", invoice) for invoice in invoices.values()]
    await stripe_double.deliver(url(paid_stack), OLD, failed)
    await until(lambda: status(office), lambda found: found == ("suspended", ["non_payment"]), deadline=60)
    await until(lambda: status(other), lambda found: found == ("suspended", ["admin", "non_payment"]), deadline=60)
    await until(models, lambda code: code == 403)

    later = int(double.now) + 1
    paid = [double.event("invoice.paid", invoice, later) for invoice in invoices.values()]
    await stripe_double.deliver(url(paid_stack), OLD, paid)
    await until(lambda: status(office), lambda found: found == ("active", []), deadline=60)
    await until(models, lambda code: code == 200)
    # what an admin has suspended, for abuse perhaps, no payment lifts
    await until(lambda: status(other), lambda found: found == ("suspended", ["admin"]), deadline=60)
    actions = [(entry["actor"], entry["action"]) for entry in await office.audit(tenant_id=office.tenant_id)]
    assert actions.count(("billing", "POST /internal/tenants/{id}/standing")) == 2


async def test_an_admins_word_goes_before_billings(paid_stack: Stack, double: Double) -> None:
    office, customer = await tenant(paid_stack, double)
    invoice = {"id": f"in_{customer}_due", "customer": customer}
    await stripe_double.deliver(url(paid_stack), NEW, [double.event("invoice.payment_failed", invoice)])
    await until(lambda: status(office), lambda found: found[0] == "suspended", deadline=60)
    await office.admin("PATCH", f"/admin/tenants/{office.tenant_id}", {"status": "active"})
    await stripe_double.deliver(url(paid_stack), NEW, [double.event("invoice.payment_failed", invoice)])
    await office.admin("PATCH", f"/admin/tenants/{office.tenant_id}", {"name": "renamed"})
    assert await status(office) == ("active", [])

    async def renamed() -> str:
        return str(double.of("customer")[customer]["name"])

    await until(renamed, lambda name: name == "renamed", deadline=60)


async def test_pages_to_pay_on(paid_stack: Stack, double: Double) -> None:
    office, customer = await tenant(paid_stack, double)
    path = f"/admin/tenants/{office.tenant_id}"
    page = await office.admin("POST", f"{path}/checkout", {**PAGES, "amount_usd": "12.50"})
    (session,) = [s for s in double.of("checkout").values() if s["customer"] == customer]
    assert (page["url"], session["amount_total"]) == (session["url"], 1250)
    await office.admin("POST", f"{path}/checkout", {**PAGES, "kind": "card"})
    portal = await office.admin("POST", f"{path}/portal", {"return_url": "https://shop.example"})
    assert portal["url"].startswith(double.url)
    refused: list[tuple[Any, str]] = [
        ({**PAGES}, "amount_usd"),
        ({**PAGES, "amount_usd": "0.49"}, "amount_usd"),
        ({**PAGES, "amount_usd": "1.005"}, "amount_usd"),
        ({**PAGES, "amount_usd": "5", "success_url": "javascript:alert(1)"}, "success_url"),
        ({**PAGES, "amount_usd": "5", "kind": "gold"}, "kind"),
    ]
    for body, param in refused:
        answer = await office.call("POST", f"{path}/checkout", body)
        assert (answer.status, answer.body["error"]["param"]) == (400, param)


async def test_what_is_not_signed_by_stripe_just_now_is_refused(paid_stack: Stack, double: Double) -> None:
    body, now = b'{"id":"evt_x","type":"invoice.paid","created":1}', int(time.time())
    signatures = {
        "": 400,
        header(body, "whsec_other", now): 400,
        header(body, NEW, now - 365 * 86_400): 400,
        header(body + b" ", NEW, now): 400,
        header(body, NEW, now): 200,
    }
    async with aiohttp.ClientSession() as session:
        for signature, expected in signatures.items():
            headers = {"Stripe-Signature": signature} if signature else {}
            async with session.post(url(paid_stack), data=body, headers=headers) as response:
                assert response.status == expected, (signature, await response.text())
        large = random.Random(1).randbytes(600_000)
        async with session.post(url(paid_stack), data=large) as response:
            assert response.status == 413
    parked = (await Office(paid_stack, "").admin("GET", "/admin/stripe/events"))["events"]
    assert "evt_x" in [event["id"] for event in parked]
    replayed = await Office(paid_stack, "").call("POST", "/admin/stripe/events/evt_x/replay")
    assert (replayed.status, replayed.body) == (200, {"id": "evt_x", "state": "parked"})


async def test_a_webhook_while_billing_is_away_is_not_lost(paid_stack: Stack, double: Double) -> None:
    office, customer = await tenant(paid_stack, double)
    event = double.event("invoice.payment_failed", {"id": f"in_{customer}_away", "customer": customer})
    for index in range(2):
        await paid_stack.stop("billing", index)
    delivery = asyncio.create_task(stripe_double.deliver(url(paid_stack), NEW, [event], tries=60))
    await asyncio.gather(*(paid_stack.restart("billing", index) for index in range(2)))
    assert (await delivery)[-1] == 200
    await until(lambda: status(office), lambda found: found == ("suspended", ["non_payment"]), deadline=60)
