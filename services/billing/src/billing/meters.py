"""The outbox to Stripe's meter: batches are written first, then sent until Stripe has them, each once.

| what happens | what follows |
|---|---|
| no answer, 429, 5xx | the same identifier again, later |
| Stripe has the identifier already | delivered |
| Stripe refuses it | again after an hour, logged: a customer may have been deleted by hand |
| not delivered `SAFE` after the first try | never sent again: Stripe's own sum says whether it arrived |
| the process dies | the claim ends, and another sends it under the same identifier |
"""

import asyncio
import logging
import random
import time
from datetime import datetime, timedelta
from uuid import UUID

from billing import meter_store
from billing.batches import SAFE, Batch, dated, identifier, settle, split, wait
from billing.meter_store import Claimed, Doubt
from billing.metrics import METER_DELIVERED, METER_FAILED, METER_LOST
from billing.stripe_api import Stripe
from common.db import Connection, Pool, transaction
from common.errors import ApiError, Unavailable, UpstreamError

log = logging.getLogger(__name__)

CLAIM = timedelta(seconds=60)
"""Longer than a call to Stripe may take."""
AT_ONCE = 16
MOST = 200
"""Batches claimed at once."""
REFUSED = timedelta(hours=1)
QUIET = timedelta(hours=1)
"""Until sums can be trusted to have what was accepted."""
HOUR = timedelta(hours=1)


async def gather(pool: Pool, tenant_id: UUID, now: datetime) -> int:
    """Everything that the tenant owes into batches, in one transaction; returns how many."""
    async with transaction(pool) as connection:
        link = await meter_store.hold(connection, tenant_id)
        if link is None:  # another replica gathers it
            return 0
        owed = await meter_store.take(connection, tenant_id)
        micros, carried = split(owed.hours, link.carried)
        batches = [
            Batch(
                tenant_id=tenant_id,
                hour=hour,
                at=dated(hour, link.starts_at, now),
                micro=micro,
                identifier=identifier(tenant_id, hour, f"outbox {owed.last}", micro),
            )
            for hour, micro in micros.items()
        ]
        await meter_store.add(connection, batches, now)
        await meter_store.carry(connection, tenant_id, carried)
    return len(batches)


async def send(pool: Pool, stripe: Stripe, now: datetime) -> tuple[int, int]:
    """Send what is due; returns how many were delivered and how many must be tried again."""
    until = time.monotonic() + CLAIM.total_seconds() / 2
    async with transaction(pool) as connection:
        claimed = await meter_store.claim(connection, now, until=now + CLAIM, tried_since=now - SAFE, limit=MOST)
        claimed = [await _redated(connection, batch, now) for batch in claimed]
    places = asyncio.Semaphore(AT_ONCE)

    async def one(batch: Claimed) -> tuple[int, ApiError | None]:
        async with places:
            if time.monotonic() > until:  # the claim may end before an answer comes
                return batch.id, Unavailable("there was no time left to send it")
            try:
                await stripe.report(batch.identifier, batch.customer_id, batch.micro, batch.at)
            except (Unavailable, UpstreamError) as error:
                return batch.id, error
            return batch.id, None

    answers = dict(await asyncio.gather(*map(one, claimed)))
    async with transaction(pool) as connection:
        done = sorted(id for id, error in answers.items() if error is None)
        await meter_store.delivered(connection, done, now)
        for batch in sorted(claimed, key=lambda batch: batch.id):
            if error := answers[batch.id]:
                await meter_store.delay(connection, batch.id, now + _pause(batch, error), error.message[:500])
    METER_DELIVERED.inc(len(done))
    return len(done), len(claimed) - len(done)


async def _redated(connection: Connection, batch: Claimed, now: datetime) -> Claimed:
    """A batch that waited for its first try for long may be too old by now; later, its body must stay as it was."""
    at = dated(batch.hour, batch.starts_at, now)
    if batch.tries > 1 or at <= batch.at:
        return batch
    await meter_store.redate(connection, batch.id, at)
    return Claimed(**{name: getattr(batch, name) for name in batch.__struct_fields__} | {"at": at})


def _pause(batch: Claimed, error: ApiError) -> timedelta:
    if isinstance(error, Unavailable):
        METER_FAILED.labels("unavailable").inc()
        return wait(batch.tries, error.retry_after, random.random())  # noqa: S311  jitter
    METER_FAILED.labels("refused").inc()
    log.error("meter batch %s of tenant %s is refused: %s", batch.id, batch.tenant_id, error.message)
    return REFUSED


async def resolve(pool: Pool, stripe: Stripe, meter_id: str, now: datetime) -> int:
    """Let Stripe's sums say what became of batches that are too old to be sent again; returns how many are settled."""
    async with transaction(pool) as connection:
        if new := await meter_store.doubt(connection, now, now - SAFE):
            log.warning("%s meter batches are sent no more: Stripe's sums will tell whether they arrived", new)
        doubts = await meter_store.doubts(connection, now - QUIET)
    return sum([await _resolved(pool, stripe, meter_id, doubt, now) for doubt in doubts])


async def _resolved(pool: Pool, stripe: Stripe, meter_id: str, doubt: Doubt, now: datetime) -> int:
    told = (await stripe.sums(meter_id, doubt.customer_id, doubt.since, doubt.since + HOUR)).get(doubt.since, 0)
    async with transaction(pool) as connection:
        # as it was when Stripe was asked, or else later
        if doubt not in await meter_store.doubts(connection, now - QUIET):
            return 0
        settlement = settle(doubt.sent, doubt.known, told)
        if settlement is None:
            log.error(
                "Stripe's meter has %s micro-dollars of %s at %s, and %s were accepted",
                told, doubt.customer_id, doubt.since, doubt.known,
            )  # fmt: skip
            return 0
        if not await meter_store.settle(connection, settlement.counted, now):
            return 0
        if settlement.lost:
            name = f"lost {max(settlement.counted)}"
            again = Batch(
                tenant_id=doubt.tenant_id,
                hour=doubt.hour,
                at=dated(doubt.hour, doubt.starts_at, now),
                micro=settlement.lost,
                identifier=identifier(doubt.tenant_id, doubt.hour, name, settlement.lost),
            )
            await meter_store.add(connection, [again], now)
            METER_LOST.inc(settlement.lost)
    return len(settlement.counted)
