"""The end of every request: one usage record, then its slot returned. Owned by no request, so no hang-up cancels it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import msgspec
from prometheus_client import Counter, Gauge

from common.bus import Bus
from common.errors import Unavailable
from common.events import UsageRecorded
from gateway import prices
from gateway.leases import Ask, Leases
from gateway.live import Counted, Live
from gateway.observed import Observed
from gateway.prices import rounded_up
from gateway.spool import Spool

log = logging.getLogger(__name__)

AT_ONCE = 64
"""Records being stored at the same time: a thousand streams that end together must not block the loop."""
REST = 1.0
"""Seconds without NATS after it did not acknowledge; records are spooled meanwhile."""
SETTLED = Counter("gateway_settled_requests", "Requests by outcome and where their record went", ["outcome", "to"])
UNSETTLED = Gauge("gateway_unsettled_requests", "Requests that have ended and whose record is not stored yet")

Count = Callable[[Live], Awaitable[Counted]]


class Settlement:
    def __init__(self, bus: Bus, spool: Spool, leases: Leases, observed: Observed, ttl_ms: int, renew_ms: int) -> None:
        self._observed = observed
        self._bus = bus
        self._spool = spool
        self._spooling = asyncio.Lock()
        self._leases = leases
        self._ttl_ms = ttl_ms
        self._renew_ms = renew_ms
        self._live: dict[str, Live] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._spool_until = 0.0
        self._owed: dict[str, tuple[int, int]] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def live(self) -> int:
        return len(self._live)

    def begin(self, live: Live) -> None:
        self._live[live.lease_id] = live
        self._empty.clear()

    def end(self, live: Live, count: Count | None = None) -> None:
        """Settle, without waiting. `count` is asked when the engine has not told the tokens."""
        ended_at = datetime.now(UTC)
        task = asyncio.get_running_loop().create_task(self._settle(live, ended_at, count))
        self._running.add(task)
        UNSETTLED.inc()
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        UNSETTLED.dec()
        if not self._live and not self._running:
            self._empty.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("settlement failed, the scheduler will settle the lease", exc_info=error)

    async def drained(self, timeout: float | None = None) -> bool:
        """Returns once every request has ended and is settled; False when `timeout` seconds were not enough."""
        try:
            async with asyncio.timeout(timeout):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    async def _settle(self, live: Live, ended_at: datetime, count: Count | None) -> None:
        tokens = cost = 0
        try:
            if live.outcome is not None:
                if count is not None:
                    live.counted = await count(live)
                record = live.record(ended_at, live.outcome)
                tokens = record.input_tokens + record.output_tokens
                cost = rounded_up(prices.cost(live.price, record)) if live.price else 0
                self._observed(record, live.traceparent)
                async with self._at_once:
                    await self._store(record)
        finally:
            del self._live[live.lease_id]
        # only now: until the record is stored the lease is what the scheduler would settle it from
        if live.leased:
            try:
                await self._leases.end(live.lease_id, tokens, cost)
            except Unavailable:
                self._owed[live.lease_id] = (tokens, cost)

    async def _store(self, event: UsageRecorded) -> None:
        body = msgspec.json.encode(event)
        loop = asyncio.get_running_loop()
        while True:
            if self._bus.connected and loop.time() >= self._spool_until:
                try:
                    await self._bus.publish(event.subject, body, str(event.id))
                except Unavailable as error:
                    self._spool_until = loop.time() + REST
                    log.warning("request %s: its record goes to the spool: %s", event.id, error)
                else:
                    SETTLED.labels(event.outcome, "stream").inc()
                    return
            try:
                async with self._spooling:
                    await asyncio.to_thread(self._spool.append, [event])
            except OSError as error:
                log.error("request %s: neither NATS nor the spool takes its record: %s", event.id, error)  # noqa: TRY400
                await asyncio.sleep(1)
            else:
                SETTLED.labels(event.outcome, "spool").inc()
                return

    async def renew(self) -> None:
        """Tell Redis, again and again, that all live requests live, and how far they are."""
        while True:
            await asyncio.sleep(self._renew_ms / 1000)
            try:
                await self._return_owed()
                await self._renew_once()
            except Unavailable as error:
                log.warning("leases are not renewed: %s", error)

    async def _return_owed(self) -> None:
        """Leases of settled requests that could not be returned while Redis was away."""
        for id, (tokens, cost) in list(self._owed.items()):
            await self._leases.end(id, tokens, cost)
            del self._owed[id]

    async def _renew_once(self) -> None:
        batch = [(id, msgspec.json.encode(live.progress())) for id, live in self._live.items() if live.node_id]
        if not batch:
            return
        for id in await self._leases.renew(self._ttl_ms, batch):
            live = self._live.get(id)
            if live is not None and live.node_id is not None:
                progress = msgspec.json.encode(live.progress())
                await self._leases.claim(id, self._ttl_ms, live.intent, live.node_id, progress, live.ask or Ask())
                live.leased = True
                if id not in self._live:  # it ended in between
                    await self._leases.give_back(id)

    async def republish(self) -> None:
        """Publish what was spooled, here or by a gateway that died, as soon as NATS is back."""
        while True:
            await asyncio.sleep(1)
            if self._bus.connected:
                try:
                    await self._republish_once()
                except (Unavailable, OSError) as error:
                    log.warning("the spool is not published: %s", error)

    async def _republish_once(self) -> None:
        async with self._spooling:
            self._spool.rotate()
            files = await asyncio.to_thread(lambda: list(self._spool.files()))
        for path, events in files:
            for event in events:
                await self._bus.publish(event.subject, msgspec.json.encode(event), str(event.id))
            self._spool.discard(path)
            log.info("published %s spooled records", len(events))
