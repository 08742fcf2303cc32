"""A month's invoice, computed from the ledger whenever it is asked for: nothing of it is stored, so nothing differs."""

import logging
from datetime import datetime
from uuid import UUID

from billing import invoice_store, store
from billing.invoicing import Invoice, invoice
from common.db import Pool, transaction

log = logging.getLogger(__name__)


async def of_month(pool: Pool, tenant_id: UUID, month: datetime, now: datetime) -> Invoice:
    """`month` is its first moment in UTC. A month without usage has an invoice without lines."""
    async with transaction(pool) as connection:
        found = await invoice_store.month(connection, tenant_id, month)
        if sum(part.sums.cost for part in found.parts) != found.ledger:
            # charged by a version that did not keep these sums
            log.warning("the month %s of tenant %s is summed again from the ledger", f"{month:%Y-%m}", tenant_id)
            await invoice_store.remake_month(connection, tenant_id, month)
            found = await invoice_store.month(connection, tenant_id, month)
        prices = await store.prices(connection, {part.model for part in found.parts})
    return invoice(tenant_id, month, found.parts, {price.id: price for price in prices}, now=now)


async def of_tenant(pool: Pool, tenant_id: UUID, before: datetime, limit: int, now: datetime) -> list[Invoice]:
    """Of the months with usage that begin before `before`, the newest first."""
    async with transaction(pool) as connection:
        months = await invoice_store.months(connection, tenant_id, before, limit)
    return [await of_month(pool, tenant_id, month, now) for month in months]
