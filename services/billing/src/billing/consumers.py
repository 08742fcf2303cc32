"""The stream `USAGE` to the ledger: what cannot be charged is parked with a reason, everything else is charged."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from billing import ledger, notice_store
from billing.intake import UNKNOWN, read
from billing.known import Known
from billing.metrics import BATCH_SECONDS, RECORDED, REPEATED, UNPRICED
from billing.notice import Notice
from common.bus import Bus
from common.consumer import Consumer, Rejected
from common.db import Pool, transaction
from common.errors import Unprocessable
from common.events import UsageRecorded


def usage(bus: Bus, pool: Pool, known: Known, charged: Callable[[set[UUID]], None]) -> Consumer:
    """`charged` is told the tenants of each batch."""

    async def handle(bodies: Sequence[bytes]) -> None:
        began = time.perf_counter()
        events = _read(bodies, datetime.now(UTC))
        owing = {event.tenant_id for event in events}
        if strangers := await known.strangers(owing):
            raise Rejected({i: UNKNOWN for i, event in enumerate(events) if event.tenant_id in strangers})
        try:
            changed = await ledger.record(pool, events)
        except ledger.Archived as archived:
            raise Rejected(archived.reasons) from archived
        except ledger.Unpriced as unpriced:
            UNPRICED.inc(len(unpriced.reasons))
            async with transaction(pool) as connection:
                await notice_store.tell(connection, _missing(events, unpriced.reasons))
            raise Rejected(unpriced.reasons) from unpriced
        charged(owing)
        RECORDED.inc(changed)
        REPEATED.inc(len(events) - changed)
        BATCH_SECONDS.observe(time.perf_counter() - began)

    return Consumer(bus, stream="USAGE", durable="billing", subject="usage.recorded.v1.>", handle=handle)


def _missing(events: Sequence[UsageRecorded], reasons: Mapping[int, str]) -> list[Notice]:
    """One of a model and the day on which it was used, in order, so that no two transactions wait for each other."""
    found = {f"price.missing:{events[at].model}:{events[at].started_at:%Y-%m-%d}": at for at in sorted(reasons)}
    return [
        Notice(
            topic="price.missing",
            key=key,
            tenant_id=None,
            facts={"model": events[at].model, "reason": reasons[at]},
        )
        for key, at in sorted(found.items())
    ]


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
