"""What Stripe's events change here: each in one transaction with its own id, so that it changes it once.

| what comes | the answer |
|---|---|
| not signed, or long ago | 400, nothing is written |
| known already | 200 |
| being handled by another replica | 409: it comes again |
| overtaken by a later one | 200, `stale` |
| what can never be applied as it is | 200, `parked` with the reason, until an admin replays it |
| the database is away | 503: it comes again, for days |
"""

import logging
from collections.abc import Callable
from typing import TypeAlias
from uuid import UUID, uuid5

from billing import account_store, money, notice_store, stripe_events, webhook_store
from billing.metrics import WEBHOOKS
from billing.notice import Fact, Notice
from billing.stripe_events import CREDIT_PAID, INVOICES, METER_ERRORS, Event
from billing.webhook_store import State
from common.db import Connection, Pool, transaction
from common.errors import Conflict, InvalidRequest, NotFound, Unprocessable

log = logging.getLogger(__name__)
Changed: TypeAlias = Callable[[UUID], None]

PICO_PER_CENT = 10**10
_CREDITS = UUID("0197d3a6-4c5e-7b1a-9c55-6f1d2a7e0c12")


async def receive(pool: Pool, body: bytes, changed: Changed) -> State | None:
    """Of a body whose signature was verified; None when it was known. `changed` hears of tenants with new credit.

    Raises InvalidRequest for what is no event, Conflict, Unavailable.
    """
    try:
        event = stripe_events.read(body)
        at = event.at
    except Unprocessable as error:
        raise InvalidRequest(f"it is no event of Stripe: {error}") from error
    async with transaction(pool) as connection:
        if not await webhook_store.alone(connection, event.id):
            raise Conflict("another delivery of this event is being handled")
        if await webhook_store.known(connection, event.id):
            return None
        state, reason, tenant_id = await _applied(connection, event)
        await webhook_store.add(connection, event, state, reason, body if state == "parked" else None)
    _told(event, state, reason, tenant_id, changed)
    log.debug("%s of %s is %s", event.type, at, state)
    return state


async def replay(pool: Pool, event_id: str, changed: Changed) -> State:
    """A parked event once more. Raises NotFound."""
    async with transaction(pool) as connection:
        body = await webhook_store.parked(connection, event_id)
        if body is None:
            raise NotFound("there is no such parked event", param="id")
        event = stripe_events.read(body)
        state, reason, tenant_id = await _applied(connection, event)
        await webhook_store.end(connection, event_id, state, reason)
    _told(event, state, reason, tenant_id, changed)
    return state


def _told(event: Event, state: State, reason: str, tenant_id: UUID | None, changed: Changed) -> None:
    WEBHOOKS.labels(state).inc()
    if state == "parked":
        log.error("event %s of Stripe (%s) is parked: %s", event.id, event.type, reason)
    if tenant_id is not None and state == "applied":
        changed(tenant_id)


async def _applied(connection: Connection, event: Event) -> tuple[State, str, UUID | None]:
    try:
        if event.type in INVOICES:
            return await _invoice(connection, event)
        if event.type in CREDIT_PAID:
            return await _credit(connection, event)
        if event.type.startswith(METER_ERRORS):
            raise Unprocessable("Stripe could not use meter events that it had accepted: see its error report")
    except Unprocessable as error:
        return "parked", str(error), None
    return "ignored", "", None


async def _invoice(connection: Connection, event: Event) -> tuple[State, str, UUID | None]:
    invoice = stripe_events.invoice(event)
    tenant_id = await _tenant(connection, invoice.customer)
    known = await webhook_store.invoice(connection, invoice.id)
    after = stripe_events.newer(known, INVOICES[event.type], event.at)
    if after is None:
        return "stale", "", None
    await webhook_store.put_invoice(connection, invoice.id, tenant_id, after)
    if after.status == "failed":
        owed = money.usd((invoice.amount_due or 0) * PICO_PER_CENT)
        facts: dict[str, Fact] = {"amount_usd": owed, "reason": f"Stripe could not charge invoice {invoice.id}"}
        notice = Notice(topic="payment.failed", key=f"payment.failed {event.id}", tenant_id=tenant_id, facts=facts)
        await notice_store.tell(connection, [notice])
    return "applied", "", tenant_id


async def _credit(connection: Connection, event: Event) -> tuple[State, str, UUID | None]:
    paid = stripe_events.checkout(event)
    tenant_id = paid.tenant_id
    if tenant_id is None or paid.payment_status != "paid":
        return "ignored", "", None
    if paid.customer is None or await _tenant(connection, paid.customer) != tenant_id:
        raise Unprocessable(f"checkout {paid.id} was paid by another customer than the tenant's")
    if paid.currency != "usd" or not paid.amount_total:
        raise Unprocessable(f"checkout {paid.id} was not paid in dollars")
    # the id is the checkout's: two events tell of one payment
    added = await account_store.add_credit(
        connection,
        id=uuid5(_CREDITS, paid.id),
        tenant_id=tenant_id,
        amount=paid.amount_total * PICO_PER_CENT,
        reason=f"paid at checkout {paid.id}",
        expires_at=None,
        by="stripe",
        kind="paid",
    )
    return "applied" if added else "stale", "", tenant_id


async def _tenant(connection: Connection, customer_id: str) -> UUID:
    tenant_id = await webhook_store.tenant(connection, customer_id)
    if tenant_id is None:
        raise Unprocessable(f"no tenant is the customer {customer_id}")
    return tenant_id
