"""The stream `USAGE` to the ledger: what cannot be charged is parked with a reason, everything else is charged."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from uuid import UUID

from billing import ledger
from billing.intake import read
from billing.metrics import BATCH_SECONDS, RECORDED, REPEATED, UNPRICED
from common.bus import Bus
from common.consumer import Consumer, Rejected
from common.db import Pool
from common.errors import Unprocessable
from common.events import UsageRecorded


def usage(bus: Bus, pool: Pool, charged: Callable[[set[UUID]], None]) -> Consumer:
    """`charged` is told the tenants of each batch."""

    async def handle(bodies: Sequence[bytes]) -> None:
        began = time.perf_counter()
        events = _read(bodies, datetime.now(UTC))
        try:
            changed = await ledger.record(pool, events)
        except ledger.Unpriced as unpriced:
            UNPRICED.inc(len(unpriced.reasons))
            raise Rejected(unpriced.reasons) from unpriced
        charged({event.tenant_id for event in events})
        RECORDED.inc(changed)
        REPEATED.inc(len(events) - changed)
        BATCH_SECONDS.observe(time.perf_counter() - began)

    return Consumer(bus, stream="USAGE", durable="billing", subject="usage.recorded.v1.>", handle=handle)


def _read(bodies: Sequence[bytes], now: datetime) -> list[UsageRecorded]:
    events: list[UsageRecorded] = []
    reasons: dict[int, str] = {}
    for index, body in enumerate(bodies):
        try:
            events.append(read(body, now))
        except Unprocessable as error:
            reasons[index] = str(error)
    if reasons:
        raise Rejected(reasons)
    return events
