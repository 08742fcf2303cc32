"""What billing does by the clock: says whether it can work and how far behind it is, makes partitions ahead of need."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from billing import notice_store, store
from billing.metrics import LAG
from billing.partition import partitions_of
from common.bus import Bus
from common.db import Pool, transaction
from common.errors import Unavailable
from common.http import Probes
from common.ids import first_id

log = logging.getLogger(__name__)

DURABLE = "billing"
LOOK = 2.0  # seconds between looks at Postgres and NATS
PARTITIONS = timedelta(hours=6)
NOTICE_DAYS = 400


async def look_after(probes: Probes, pool: Pool, bus: Bus) -> None:
    """Ready while Postgres and NATS answer; the lag is what it was while they do not."""
    while True:
        look = asyncio.create_task(_look(pool, bus))
        # not cancelled when it takes too long: giving a connection back may hang with its server
        await asyncio.wait({look}, timeout=LOOK)
        if not look.done() and probes.ready:
            log.warning("not ready: no answer within %g s", LOOK)
        probes.ready = look.done() and look.result()
        if not await look:
            probes.ready = False
        await asyncio.sleep(LOOK)


async def _look(pool: Pool, bus: Bus) -> bool:
    try:
        async with transaction(pool) as connection:
            await store.now(connection)
        LAG.set(await bus.lag("USAGE", DURABLE))
    except Unavailable as error:
        log.warning("not ready: %s", error)
        return False
    return True


async def make_partitions(pool: Pool) -> None:
    """Those of this month and the next, now and every few hours: usage need not wait for them when a month begins."""
    while True:
        try:
            await add_partitions(pool, datetime.now(UTC))
            await asyncio.sleep(PARTITIONS.total_seconds())
        except Unavailable as error:
            log.warning("partitions are made later: %s", error)
            await asyncio.sleep(60)


async def forget_notices(pool: Pool) -> None:
    """Those that are long past, every few hours."""
    while True:
        try:
            async with transaction(pool) as connection:
                await notice_store.forget(connection, NOTICE_DAYS)
        except Unavailable as error:
            log.warning("old notices are deleted later: %s", error)
        await asyncio.sleep(PARTITIONS.total_seconds())


async def add_partitions(pool: Pool, now: datetime) -> None:
    next_month = now.replace(day=1) + timedelta(days=32)
    for partition in partitions_of([first_id(now), first_id(next_month)]):
        async with transaction(pool) as connection:
            await store.add_partition(connection, partition)
