"""The price book's only write: a new version, never one that changes what was charged."""

from datetime import datetime, timedelta
from uuid import UUID

from billing import store
from billing.pricing import ANY_REGION, Price
from common.db import Pool, transaction
from common.errors import InvalidRequest

BACKDATED = timedelta(days=35)
"""How far back a first price may reach: as long as the stream keeps the usage that waits for it."""


async def put(
    pool: Pool,
    *,
    id: UUID,
    model: str,
    region: str,
    input: int,
    cached_input: int,
    output: int,
    effective_from: datetime | None,
    created_by: str,
) -> Price:
    """Add a version; prices are pico-dollars a token, None is from now on.

    Raises InvalidRequest when it would begin in the past and is not the first, Conflict when one begins at that moment.
    """
    async with transaction(pool) as connection:
        await store.own_prices(connection)
        now = await store.now(connection)
        price = Price(
            id=id,
            model=model,
            region=region,
            input=input,
            cached_input=cached_input,
            output=output,
            effective_from=effective_from or now,
            created_at=now,
            created_by=created_by,
        )
        if problem := past_problem(price, await store.prices(connection, [model]), now):
            raise InvalidRequest(problem, param="effective_from")
        await store.add_price(connection, price)
    return price


def past_problem(price: Price, known: list[Price], now: datetime) -> str | None:
    """Why this version may not begin when it does: requests that were charged would cost something else on a replay."""
    if price.effective_from >= now:
        return None
    if price.effective_from < now - BACKDATED:
        return f"effective_from is more than {BACKDATED.days} days ago"
    if any(p.region == price.region for p in known):
        return "effective_from is in the past, and usage since then is charged by the price there is"
    if any(p.region == ANY_REGION and p.effective_from <= now for p in known):
        return "effective_from is in the past, and usage since then is charged by the price for any region"
    return None
