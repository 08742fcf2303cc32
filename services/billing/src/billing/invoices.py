"""A month's invoice, computed from the ledger whenever it is asked for: nothing of it is stored, so nothing differs."""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import UUID

from billing import account_store, invoice_store, store
from billing.invoicing import Adjustment, Invoice, following, invoice
from billing.statement import Grant, Line, month_of
from common.db import Pool, transaction

log = logging.getLogger(__name__)

LAST = timedelta(microseconds=1)
ITEMS = {
    "committed": "Covered by reserved capacity",
    "free": "Free monthly allowance",
    "promotional": "Promotional credit",
    "paid": "Prepaid credit",
}


async def of_month(pool: Pool, tenant_id: UUID, month: datetime, now: datetime) -> Invoice:
    """`month` is its first moment in UTC. A month without usage has an invoice without lines."""
    until = min(max(now, month), following(month) - LAST)
    for _ in range(2):
        async with transaction(pool) as connection:
            await store.one_snapshot(connection)
            found = await invoice_store.month(connection, tenant_id, month)
            known = await store.prices(connection, {part.model for part in found.parts})
            statement, grants = await account_store.owed(connection, tenant_id, month, until)
        if sum(part.sums.cost for part in found.parts) == found.ledger:
            break
        # charged by a version that did not keep these sums
        log.warning("the month %s of tenant %s is summed again from the ledger", f"{month:%Y-%m}", tenant_id)
        async with transaction(pool) as connection:
            await invoice_store.remake_month(connection, tenant_id, month)
    else:
        raise RuntimeError(f"the sums of {month:%Y-%m} of tenant {tenant_id} are not those of its ledger")
    lines = [line for line in statement.lines if line.month == month_of(month) and line.item != "usage"]
    adjustments = list(_adjustments(lines, grants))
    return invoice(tenant_id, month, found.parts, {price.id: price for price in known}, adjustments, now=now)


async def of_tenant(pool: Pool, tenant_id: UUID, before: datetime, limit: int, now: datetime) -> list[Invoice]:
    """Of the months with usage that begin before `before`, the newest first."""
    async with transaction(pool) as connection:
        months = await invoice_store.months(connection, tenant_id, before, limit)
    return [await of_month(pool, tenant_id, month, now) for month in months]


def _adjustments(lines: list[Line], grants: list[Grant]) -> Iterator[Adjustment]:
    reasons = {grant.id: grant.reason for grant in grants}
    for line in lines:
        text = ITEMS.get(line.item, f"Reserved capacity, {line.unit_hours} tokens a second × hours")
        if line.grant_id is not None and (reason := reasons[line.grant_id]):
            text = f"{text}: {reason}"
        yield Adjustment(description=text, amount=line.amount)
