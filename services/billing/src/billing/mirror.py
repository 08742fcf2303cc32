"""Credits, which are ours, as credit grants at Stripe, so that its invoices count them too."""

from datetime import datetime

from billing import webhook_store
from billing.customers import Customers
from billing.stripe_api import Stripe
from billing.webhooks import PICO_PER_CENT
from common.db import Pool, transaction

MOST = 100


async def mirror(pool: Pool, stripe: Stripe, customers: Customers, now: datetime) -> int:
    """Grant what is not granted yet; returns how many. Stripe counts in cents: a part of one is granted as a whole.

    A grant that was made and not written down is found again by its metadata. Raises Unavailable, UpstreamError.
    """
    async with transaction(pool) as connection:
        found = await webhook_store.unmirrored(connection, now, MOST)
    for credit in found:
        link = await customers.link(credit.tenant_id)
        cents = -(-credit.amount // PICO_PER_CENT)
        grant_id = await stripe.grant(credit.id, link.customer_id, cents, credit.expires_at, paid=credit.paid, now=now)
        async with transaction(pool) as connection:
            await webhook_store.add_grant(connection, credit.id, grant_id, cents)
    return len(found)
