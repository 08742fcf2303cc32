"""What billing does with Stripe by the clock. Any number of replicas do it at once, and none of it twice."""

import asyncio
import logging
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from billing import meter_store, meters
from billing.clock import forever
from billing.customers import Customers
from billing.metrics import METER_LAG, METER_UNCERTAIN
from billing.mirror import mirror
from billing.stripe_api import Stripe
from common.bus import Bus
from common.db import Pool, transaction
from common.errors import NotFound, Unavailable, UpstreamError
from common.events import TenantChanged

log = logging.getLogger(__name__)

SEND_EVERY = 1.0
RESOLVE_EVERY = 600.0
SWEEP_EVERY = 600.0


class Metering:
    def __init__(self, pool: Pool, bus: Bus, stripe: Stripe, customers: Customers, interval: float) -> None:
        """`interval` in seconds: usage of that time goes into one batch."""
        self._pool, self._bus, self._stripe = pool, bus, stripe
        self._customers, self._interval = customers, interval
        self._changed: asyncio.Queue[UUID] = asyncio.Queue(10_000)

    async def run(self) -> None:
        """Run for as long as the service; what is not done yet is done later, also after a crash."""
        await self._bus.listen("tenant.changed.v1", self._heard)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(forever("usage is gathered", self._interval, self._gather))
            tasks.create_task(forever("batches are sent", min(SEND_EVERY, self._interval), self._send))
            tasks.create_task(forever("doubts are resolved", RESOLVE_EVERY, self._resolve))
            tasks.create_task(forever("customers are swept", SWEEP_EVERY, self._customers.sweep))
            tasks.create_task(forever("credits are mirrored", max(self._interval, 1.0), self._mirror))
            tasks.create_task(forever("new tenants become customers", 0.0, self._follow))

    def _heard(self, body: bytes) -> None:
        try:
            self._changed.put_nowait(msgspec.json.decode(body, type=TenantChanged).tenant_id)
        except (msgspec.DecodeError, asyncio.QueueFull) as error:  # the sweep finds it
            log.warning("a change of a tenant is found later: %r", error)

    async def _follow(self) -> None:
        tenant_id = await self._changed.get()
        try:
            await self._customers.follow(tenant_id)
        except NotFound:
            log.warning("tenant %s is told of, and not there", tenant_id)

    async def _gather(self) -> None:
        async with transaction(self._pool) as connection:
            owing = await meter_store.owing(connection)
        away: Unavailable | None = None
        for tenant_id in owing:
            try:
                await self._customers.link(tenant_id)
                await meters.gather(self._pool, tenant_id, datetime.now(UTC))
            except Unavailable as error:  # the others need not wait
                away = error
            except (NotFound, UpstreamError) as error:
                log.warning("what tenant %s owes is not told to Stripe: %s", tenant_id, error)
        if away is not None:
            raise away

    async def _send(self) -> None:
        now = datetime.now(UTC)
        while True:
            done, failed = await meters.send(self._pool, self._stripe, now)
            async with transaction(self._pool) as connection:
                backlog = await meter_store.backlog(connection, now)
            METER_LAG.set(backlog.seconds)
            METER_UNCERTAIN.set(backlog.uncertain)
            if failed and not done:
                raise Unavailable("Stripe takes no meter events")
            if done + failed < meters.MOST:
                return
            now = datetime.now(UTC)

    async def _mirror(self) -> None:
        await mirror(self._pool, self._stripe, self._customers, datetime.now(UTC))

    async def _resolve(self) -> None:
        meter_id = (await self._customers.catalog()).meter_id
        await meters.resolve(self._pool, self._stripe, meter_id, datetime.now(UTC))
