"""Tenants as Stripe's customers: made when a tenant is, or when it first owes something, and never twice."""

import logging
from datetime import UTC, datetime
from uuid import UUID

from billing import meter_store, tenants
from billing.batches import PICO_PER_MICRO
from billing.meter_store import Link
from billing.stripe_api import Catalog, Stripe
from common.bus import Bus
from common.db import Pool, transaction
from common.errors import NotFound, UpstreamError
from common.tenants import Profile

log = logging.getLogger(__name__)


class Customers:
    """Every method raises Unavailable and, where Stripe refuses what it is told, UpstreamError."""

    def __init__(self, pool: Pool, bus: Bus, stripe: Stripe) -> None:
        self._pool, self._bus, self._stripe = pool, bus, stripe
        self._catalog: Catalog | None = None

    async def catalog(self) -> Catalog:
        if self._catalog is None:
            self._catalog = await self._stripe.catalog(datetime.now(UTC))
        return self._catalog

    async def link(self, tenant_id: UUID) -> Link:
        """The tenant's, made where it is missing. Raises NotFound for a tenant that the gateway does not know."""
        async with transaction(self._pool) as connection:
            known = await meter_store.links(connection, [tenant_id])
        return known.get(tenant_id) or await self._made(await tenants.profile(self._bus, tenant_id))

    async def follow(self, tenant_id: UUID) -> None:
        """The tenant is new, or its name or e-mail is."""
        await self._follow(await tenants.profile(self._bus, tenant_id))

    async def sweep(self) -> None:
        """Every tenant that has no customer gets one, every customer the name that its tenant has now."""
        async for profile in tenants.profiles(self._bus):
            try:
                await self._follow(profile)
            except (UpstreamError, NotFound) as error:
                log.warning("tenant %s is no customer of Stripe: %s", profile.id, error)

    async def _follow(self, profile: Profile) -> None:
        async with transaction(self._pool) as connection:
            known = (await meter_store.links(connection, [profile.id])).get(profile.id)
        if known is None:
            await self._made(profile)
        elif (known.name, known.email) != (profile.name, profile.email):
            await self._stripe.rename(known.customer_id, profile.name, profile.email)
            async with transaction(self._pool) as connection:
                await meter_store.rename(connection, profile.id, profile.name, profile.email)

    async def _made(self, profile: Profile) -> Link:
        """What Stripe's meter has of a customer that we forgot, with our database or with an answer that was lost, is
        carried as paid: the ledger that is charged anew is not told anew."""
        now = datetime.now(UTC)
        catalog = await self.catalog()
        customer = await self._stripe.customer(profile.id, profile.name, profile.email, now)
        subscription = await self._stripe.subscription(customer, profile.id, catalog.price_id, now)
        told = await self._stripe.total(catalog.meter_id, customer, subscription.started_at, now)
        if told:
            log.warning("Stripe's meter has %s micro-dollars of tenant %s, which is new here", told, profile.id)
        link = Link(
            tenant_id=profile.id,
            customer_id=customer,
            subscription_id=subscription.id,
            starts_at=subscription.started_at,
            name=profile.name,
            email=profile.email,
            carried=-told * PICO_PER_MICRO,
        )
        async with transaction(self._pool) as connection:
            await meter_store.add_link(connection, link)
            return (await meter_store.links(connection, [profile.id]))[profile.id]
