"""The price book's only write: a new version, never one that changes what was charged."""

from datetime import datetime, timedelta
from uuid import UUID

from billing import store
from billing.pricing import ANY_PLAN, ANY_REGION, PlanOrAny, Price
from common.db import Pool, transaction
from common.errors import InvalidRequest

BACKDATED = timedelta(days=35)
"""How far back a price may reach: as long as the stream keeps the usage that waits for it."""
INSTANT = timedelta(microseconds=1)


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
    plan: PlanOrAny = ANY_PLAN,
) -> Price:
    """Add a version; prices are pico-dollars a token, None is from now on, or from after the last request charged.

    Raises InvalidRequest when it would begin where requests may have been charged, Conflict when another one begins at
    that moment.
    """
    async with transaction(pool) as connection:
        await store.own_prices(connection)
        now = await store.now(connection)
        last = await store.charged_until(connection, model, region, now)
        free = now if last is None else last + INSTANT
        price = Price(
            id=id,
            model=model,
            region=region,
            plan=plan,
            input=input,
            cached_input=cached_input,
            output=output,
            effective_from=effective_from or free,
            created_at=now,
            created_by=created_by,
        )
        if problem := past_problem(price, await store.prices(connection, [model]), now, free):
            raise InvalidRequest(problem, param="effective_from")
        await store.add_price(connection, price)
    return price


def past_problem(price: Price, known: list[Price], now: datetime, free: datetime) -> str | None:
    """Why this version may not begin when it does: requests that were charged would cost something else on a replay.

    `known` are all versions of its model; from `free` on nothing has been charged, and before it nothing where no
    version was in force.
    """
    begins = price.effective_from
    if begins >= free:
        return None
    if begins < now - BACKDATED:
        return f"effective_from is more than {BACKDATED.days} days ago"
    own = [p.effective_from for p in known if (p.region, p.plan) == (price.region, price.plan)]
    ends = min((at for at in own if at > begins), default=free)
    others = [p.effective_from for p in known if _yields(p, price)]
    if min(own + others, default=free) < min(ends, free):
        return f"effective_from is before {free.isoformat()}, and usage until then is charged by the price there was"
    return None


def _yields(known: Price, price: Price) -> bool:
    """Whether requests that `known` was charged for would have paid `price` instead."""
    if known.plan == price.plan:
        return known.region in (price.region, ANY_REGION)
    return known.plan == ANY_PLAN and (ANY_REGION in (price.region, known.region) or known.region == price.region)
