"""`rpc.billing`: Stripe's webhooks, the pages on which tenants pay, and events that are parked."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from billing import money, webhook_store, webhooks
from billing.queries import hours, tenant_of
from billing.reconcile import Reconciler, Report
from billing.routes import Admin
from billing.stripe_api import Session, verify
from billing.webhook_store import Seen, State
from billing.webhooks import PICO_PER_CENT
from common.db import transaction
from common.errors import InvalidRequest
from common.rpc import Call, Router
from common.webhooks import STRIPE, Delivered, Taken

TOLERANCE = 300
"""Seconds that a signature may be old, as Stripe recommends."""
LEAST_CENTS, MOST_CENTS = 50, 99_999_999
"""What Stripe charges at once."""
LONGEST = timedelta(days=35)
Url = Annotated[str, Meta(max_length=2000, pattern=r"^https?://[\x21-\x7e]+$")]


class NewCheckout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    success_url: Url
    cancel_url: Url
    kind: Literal["credit", "card"] = "credit"
    amount_usd: Decimal | None = None
    """Of credit; whole cents."""


class NewPortal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    return_url: Url


class EventsQuery(msgspec.Struct, frozen=True):
    state: State = "parked"
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class Events(msgspec.Struct, frozen=True):
    events: list[Seen]


class Replayed(msgspec.Struct, frozen=True):
    id: str
    state: State


class NewReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}):
    since: str | None = None
    """A day ago where it is not given; to whole hours."""
    until: str | None = None
    tenant_id: UUID | None = None
    """Of the meter; engines work for everybody."""


def add(router: Router[Admin]) -> None:
    router.route("POST", "/admin/reconcile")(reconcile)
    router.route("POST", STRIPE)(webhook)
    router.route("GET", "/admin/stripe/events")(events)
    router.route("POST", "/admin/stripe/events/{id}/replay")(replay)
    router.route("POST", "/admin/tenants/{tenant}/checkout", status=201)(checkout)
    router.route("POST", "/admin/tenants/{tenant}/portal", status=201)(portal)


async def webhook(admin: Admin, call: Call) -> Taken:
    """Answers once it is committed, or will never be."""
    delivered = call.parse(Delivered)
    verify(delivered.payload, delivered.signature, admin.till.secrets, TOLERANCE)
    await webhooks.receive(admin.pool, delivered.payload, _changed(admin))
    return Taken()


async def events(admin: Admin, call: Call) -> Events:
    asked = call.parse_query(EventsQuery)
    async with transaction(admin.pool) as connection:
        return Events(await webhook_store.seen(connection, asked.state, asked.limit))


async def replay(admin: Admin, call: Call, id: str) -> Replayed:
    return Replayed(id, await webhooks.replay(admin.pool, id, _changed(admin)))


async def checkout(admin: Admin, call: Call, tenant: str) -> Session:
    asked = call.parse(NewCheckout)
    office, tenant_id = admin.till.office, tenant_of(tenant)
    cents = _cents(asked.amount_usd) if asked.kind == "credit" else 0
    link = await office.customers.link(tenant_id)
    if asked.kind == "card":
        return await office.stripe.save_card(link.customer_id, tenant_id, asked.success_url, asked.cancel_url)
    return await office.stripe.buy_credit(link.customer_id, tenant_id, cents, asked.success_url, asked.cancel_url)


async def portal(admin: Admin, call: Call, tenant: str) -> Session:
    asked = call.parse(NewPortal)
    office = admin.till.office
    link = await office.customers.link(tenant_of(tenant))
    return await office.stripe.portal(link.customer_id, asked.return_url)


async def reconcile(admin: Admin, call: Call) -> Report:
    asked = NewReport() if call.body == b"null" else call.parse(NewReport)
    since, until = hours(asked.since, asked.until)
    until = until or _hour(datetime.now(UTC)) + timedelta(hours=1)
    since = since or until - timedelta(days=1)
    if not timedelta() < until - since <= LONGEST:
        raise InvalidRequest(f"from must be before to, by at most {LONGEST.days} days", param="from")
    return await Reconciler(admin.pool, admin.bus, admin.till.opened).report(since, until, asked.tenant_id)


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def _changed(admin: Admin) -> webhooks.Changed:
    def changed(tenant_id: UUID) -> None:
        admin.accounts.change(tenant_id)
        if admin.till.dunning is not None:
            admin.till.dunning.hurry()

    return changed


def _cents(usd: Decimal | None) -> int:
    if usd is None:
        raise InvalidRequest("amount_usd is missing", param="amount_usd")
    cents, rest = divmod(money.amount(usd, "amount_usd"), PICO_PER_CENT)
    if rest or not LEAST_CENTS <= cents <= MOST_CENTS:
        raise InvalidRequest("amount_usd must be whole cents, from 0.50 to 999999.99", param="amount_usd")
    return cents
