"""Tells that the invoice of the month before is ready, once its late records have had time to come."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from billing import invoices, notice_store
from billing.notice import Notice
from common.db import Pool, transaction
from common.errors import Unavailable

log = logging.getLogger(__name__)

GRACE = timedelta(hours=6)
LOOK = 600.0  # seconds
AT_ONCE = 100


async def run(pool: Pool) -> None:
    """For as long as the service; what was not told before a crash is told by whoever looks next."""
    while True:
        try:
            while await tell_some(pool, datetime.now(UTC)) == AT_ONCE:
                pass
        except Unavailable as error:
            log.warning("invoices are told of later: %s", error)
        await asyncio.sleep(LOOK)


async def tell_some(pool: Pool, now: datetime) -> int:
    """How many tenants were told."""
    this = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    if now < this + GRACE:
        return 0
    month = (this - timedelta(days=1)).replace(day=1)
    async with transaction(pool) as connection:
        tenants = await notice_store.uninvoiced(connection, month, AT_ONCE)
    for tenant_id in tenants:
        invoice = await invoices.of_month(pool, tenant_id, month, now)
        told = Notice(
            topic="invoice.ready",
            key=notice_store.invoice_key(tenant_id, month),
            tenant_id=tenant_id,
            facts={"month": invoice.month, "number": invoice.number, "amount_usd": invoice.due_usd},
        )
        async with transaction(pool) as connection:
            await notice_store.tell(connection, [told])
    return len(tenants)
