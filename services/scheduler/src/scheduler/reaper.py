"""Settles leases that nobody renews any more: each becomes one `gateway_lost` usage record."""

import asyncio
import logging
from datetime import UTC, datetime

from common.bus import Bus, encode
from common.errors import Unavailable, Unprocessable
from scheduler.leases import Leases
from scheduler.metrics import LEASES, OVERDUE, PARKED, REAPED, REVIVED
from scheduler.settlement import Expired, message_id, settled

log = logging.getLogger(__name__)

BATCH = 200
CHECK_EVERY = 1.0  # seconds between two checks that Redis still has the functions


class Reaper:
    """Runs on every replica. A crash at any point leaves a lease claimed; it is settled again under the same id.

    | down | what happens |
    |---|---|
    | Redis | waits, and loads the functions when it is back; logged once |
    | NATS | nothing is claimed; what is claimed already comes back after the claim |
    """

    def __init__(self, bus: Bus, leases: Leases, interval: float, claim: float) -> None:
        self._bus, self._leases = bus, leases
        self._interval, self._claim = interval, claim
        self._replace, self._lost = True, False
        self.loaded = False
        """Redis has the functions."""

    async def run(self, stopping: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        check_at = 0.0
        while not stopping.is_set():
            full = False
            try:
                if loop.time() >= check_at or not self.loaded:
                    check_at = loop.time() + CHECK_EVERY
                    await self._check()
                full = self._bus.connected and await self.reap() == BATCH
            except Unavailable as error:
                self._note(error)
            if not full:
                await _sleep(stopping, self._interval)

    async def reap(self) -> int:
        """One batch; returns how many had expired."""
        expired = await self._leases.reap(BATCH, self._claim)
        done = [id for id in await asyncio.gather(*map(self._publish, expired)) if id is not None]
        dropped = await self._leases.settle(done)
        REAPED.inc(dropped)
        REVIVED.inc(len(done) - dropped)
        return len(expired)

    async def _publish(self, lease: Expired) -> str | None:
        """The lease's id once its record is stored; None leaves it claimed."""
        try:
            record = settled(lease, datetime.now(UTC))
        except Unprocessable as error:
            return await self._park(lease, str(error))
        try:
            await self._bus.publish(record.subject, encode(record), message_id(record))
        except Unavailable as error:
            log.warning("lease %s waits: %s", lease.id, error)
            return None
        return lease.id

    async def _park(self, lease: Expired, reason: str) -> str | None:
        log.error("%s", reason)
        try:
            await self._bus.park("usage.recorded.v1.unknown", lease.intent, reason, "scheduler.reaper", lease.id)
        except Unavailable as error:
            log.warning("lease %s waits: %s", lease.id, error)
            return None
        PARKED.inc()
        return lease.id

    async def _check(self) -> None:
        if await self._leases.load_functions(replace=self._replace):
            log.info("loaded the lease functions into Redis")
        self.loaded, self._replace, self._lost = True, False, False
        backlog = await self._leases.backlog()
        LEASES.set(backlog.leases)
        OVERDUE.set(backlog.overdue)

    def _note(self, error: Unavailable) -> None:
        self.loaded = False
        if not self._lost:
            log.error("leases are not settled: %s", error)
        self._lost = True


async def _sleep(stopping: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        pass
