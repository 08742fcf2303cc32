"""Who does not pay is suspended after a time of grace; who then pays is served again. The gateway holds the status.

What is to be done is in the database before the gateway is told, and is told until it has answered: a process that dies
anywhere leaves nobody suspended who has paid.
"""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from uuid import UUID

from billing import tenants, webhook_store
from billing.clock import forever
from common.bus import Bus
from common.db import Pool, transaction
from common.errors import NotFound

log = logging.getLogger(__name__)

EVERY = 30.0


class Dunning:
    def __init__(self, pool: Pool, bus: Bus, grace: timedelta) -> None:
        self._pool, self._bus, self._grace = pool, bus, grace
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        """An invoice is another."""
        self._hurry.set()

    async def run(self) -> None:
        await forever("who has not paid is suspended", EVERY, lambda: self.enforce(datetime.now(UTC)), self._hurry)

    async def enforce(self, now: datetime) -> None:
        """Raises Unavailable."""
        async with transaction(self._pool) as connection:
            await webhook_store.decide(connection, now - self._grace, now)
            found = await webhook_store.unsettled(connection)
        for tenant_id in found:
            await self._tell(tenant_id, now)

    async def _tell(self, tenant_id: UUID, now: datetime) -> None:
        async with transaction(self._pool) as connection:
            owes = await webhook_store.hold_suspension(connection, tenant_id)
            if owes is None:
                return
            try:
                await tenants.stand(self._bus, tenant_id, paid=not owes)
            except NotFound:
                log.warning("tenant %s owes, and is not known to the gateway", tenant_id)
            if owes:
                log.warning("tenant %s is suspended: it has not paid", tenant_id)
                await webhook_store.told(connection, tenant_id, now)
            else:
                log.info("tenant %s has paid", tenant_id)
                await webhook_store.lift(connection, tenant_id)
