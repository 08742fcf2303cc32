"""Compares what must agree and says where it does not: ledger, Stripe's meter, and the engines' own counters."""

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from billing import engines, reconcile_store
from billing.clock import forever
from billing.comparison import Books, Charged, Metered, Place, Tokens, Work, leak, metered, works
from billing.metrics import LEAK, UNRECONCILED
from billing.till import Office
from common.bus import Bus
from common.db import Pool, transaction
from common.errors import Unavailable

log = logging.getLogger(__name__)

AT_ONCE = 8
EVERY = 600.0
DEAD = timedelta(minutes=30)
SETTLED = timedelta(hours=2)
"""After a day: by then Stripe has summed it, and requests that began in it have ended."""
DAY = timedelta(days=1)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    since: datetime
    until: datetime
    agrees: bool
    """The ledger with what is told to Stripe, and that with what Stripe has. Engines are judged by `leak_ratio`."""
    books: list[Books]
    """Of all time."""
    meter: list[Metered] | None
    """Hours that differ or are uncertain; None while Stripe is off."""
    engines: list[Work]
    probes_known: bool
    """False: the scheduler did not answer, and what it had engines make for itself is part of the difference."""
    leak_ratio: float | None
    """Of generated tokens, those that nobody was charged for."""


class Reconciler:
    def __init__(self, pool: Pool, bus: Bus, office: Office | None) -> None:
        self._pool, self._bus, self._office = pool, bus, office

    async def report(self, since: datetime, until: datetime, tenant_id: UUID | None = None) -> Report:
        """From and to whole hours. Raises Unavailable, UpstreamError."""
        async with transaction(self._pool) as connection:
            books = await reconcile_store.books(connection, tenant_id)
            charged = await reconcile_store.charged(connection, since, until)
            counted = await reconcile_store.counted(connection, since, until)
            customers = await reconcile_store.tenants(connection, tenant_id)
        meter = await self._meter(customers, since, until)
        try:
            probed = await engines.probed(self._bus, since, until)
        except Unavailable:
            probed = None
        found = works(_with_probes(charged, probed or {}), counted)
        agrees = not any(book.difference for book in books) and not any(hour.difference for hour in meter or ())
        return Report(
            since=since,
            until=until,
            agrees=agrees,
            books=books,
            meter=meter,
            engines=found,
            probes_known=probed is not None,
            leak_ratio=leak(found),
        )

    async def run(self) -> None:
        await forever("the day is reconciled", EVERY, lambda: self.nightly(datetime.now(UTC)))

    async def nightly(self, now: datetime) -> Report | None:
        """Yesterday's, once a day by one replica."""
        today = (now - SETTLED).replace(hour=0, minute=0, second=0, microsecond=0)
        day = (today - DAY).date()
        async with transaction(self._pool) as connection:
            if not await reconcile_store.begin(connection, day, now, now - DEAD):
                return None
        report = await self.report(today - DAY, today)
        LEAK.set(report.leak_ratio or 0.0)
        UNRECONCILED.set(sum(hour.difference != 0 for hour in report.meter or ()))
        if not report.agrees:
            log.error("%s does not agree with Stripe: ask /admin/reconcile", day)
        async with transaction(self._pool) as connection:
            await reconcile_store.end(connection, day, report.agrees, msgspec.json.encode(report))
        return report

    async def _meter(self, customers: Mapping[UUID, str], since: datetime, until: datetime) -> list[Metered] | None:
        if self._office is None:
            return None
        office, places = self._office, asyncio.Semaphore(AT_ONCE)
        meter_id = (await office.customers.catalog()).meter_id

        async def one(tenant_id: UUID, customer_id: str) -> list[Metered]:
            async with places:
                # what is delivered is read first: what is delivered meanwhile may be in the sums already
                async with transaction(self._pool) as connection:
                    delivered = await reconcile_store.delivered(connection, tenant_id, since, until)
                return metered(tenant_id, delivered, await office.stripe.sums(meter_id, customer_id, since, until))

        found = await asyncio.gather(*(one(*customer) for customer in customers.items()))
        return [hour for hours in found for hour in hours]


def _with_probes(charged: Mapping[Place, Charged], probed: Mapping[Place, Tokens]) -> dict[Place, Charged]:
    found = dict(charged)
    for place, tokens in probed.items():
        known = found.get(place, Charged(Tokens(), Tokens()))
        found[place] = Charged(known.tokens.plus(tokens), known.aborted)
    return found
