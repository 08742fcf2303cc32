"""The audit log at work: denials, calls that another service answers, reading, checking, and publishing."""

import asyncio
import logging
import time
from datetime import UTC, datetime
from uuid import UUID

import msgspec
from prometheus_client import Counter

from common.bus import Bus, encode
from common.db import Pool, transaction
from common.errors import Unavailable
from common.events import AuditRecorded
from common.ids import new_id
from gateway.audit import FIRST, Author, Entry, Sealed, entry, first_bad
from gateway.sampling import Sampling
from gateway.store import audit as log_of

LOST = Counter("gateway_audit_lost", "Audit entries that could not be written", ["what"])
BATCH = 500
PUBLISH_SECONDS = 1.0
log = logging.getLogger(__name__)


class Page(msgspec.Struct, frozen=True):
    entries: list[Sealed]
    cursor: int | None
    """Of the next page; None on the last."""


class Verdict(msgspec.Struct, frozen=True):
    ok: bool
    entries: int
    head: str
    """The last entry's hash: keep it elsewhere, and a log that was written anew from the start is found too."""
    first_bad: int | None = None


class Journal:
    def __init__(self, pool: Pool, bus: Bus) -> None:
        self._pool = pool
        self._bus = bus
        self._sampling = Sampling(time.monotonic())

    async def denied(self, author: Author, status: int, target: str, tenant_id: UUID | None = None) -> None:
        """The denial stands when Postgres is away: it is counted and logged then."""
        if not self._sampling.tell(author.address):
            return
        told = entry(author, new_id(), datetime.now(UTC), target=target, tenant_id=tenant_id, status=status)
        try:
            await self._append(told)
        except Unavailable as error:
            LOST.labels("denial").inc()
            log.warning("not in the audit log: %s %s %s: %s", told.actor, told.action, status, error)

    async def intended(self, author: Author, target: str, tenant_id: UUID | None, body: bytes) -> None:
        """Before a call is forwarded. Raises Unavailable: what cannot be told is not done."""
        now = datetime.now(UTC)
        await self._append(
            entry(author, new_id(), now, target=target, tenant_id=tenant_id, status=None, after=body or None)
        )

    async def ended(self, author: Author, target: str, tenant_id: UUID | None, status: int) -> None:
        """After it. When Postgres is away, the intention stands without an outcome."""
        try:
            await self._append(
                entry(author, new_id(), datetime.now(UTC), target=target, tenant_id=tenant_id, status=status)
            )
        except Unavailable as error:
            LOST.labels("outcome").inc()
            log.warning("outcome %s of request %s is not in the audit log: %s", status, author.request_id, error)

    async def page(self, tenant_id: UUID | None, actor: str | None, cursor: int | None, limit: int) -> Page:
        async with transaction(self._pool) as connection:
            found = await log_of.page(connection, tenant_id, actor, cursor, limit + 1)
        return Page(found[:limit], found[limit - 1].seq if len(found) > limit else None)

    async def verify(self) -> Verdict:
        """Read the whole chain, some entries at a time. What was published must be there as well."""
        async with transaction(self._pool) as connection:
            seq_published, hash_published = await log_of.published(connection)
        seq, head = 0, FIRST
        while True:
            async with transaction(self._pool) as connection:
                batch = await log_of.after(connection, seq, BATCH)
            if not batch:
                break
            bad = first_bad(batch, seq, head)
            for found in batch:
                if bad is None and found.seq == seq_published and found.hash != hash_published:
                    bad = found.seq
            if bad is not None:
                return Verdict(False, bad - 1, head if bad == seq + 1 else batch[bad - seq - 2].hash, bad)
            seq, head = batch[-1].seq, batch[-1].hash
            await asyncio.sleep(0)
        if seq < seq_published:
            return Verdict(False, seq, head, seq + 1)
        return Verdict(True, seq, head)

    async def publish(self) -> None:
        """Forever: every entry as an event, in their order, at least once, by one gateway at a time."""
        while True:
            try:
                while await self._published_some():
                    pass
            except Unavailable as error:
                log.warning("audit entries wait to be published: %s", error)
            await asyncio.sleep(PUBLISH_SECONDS)

    async def summarize(self) -> None:
        """Forever: once a minute, an entry for the denials of each address that had none of their own."""
        while True:
            await asyncio.sleep(1)
            await self.summarized()

    async def summarized(self, *, early: bool = False) -> None:
        untold = self._sampling.close(time.monotonic(), early=early)
        while untold:
            address, count = untold.popitem()
            author = Author("unknown", "denied calls", address, "")
            one = entry(author, new_id(), datetime.now(UTC), target="", tenant_id=None, status=429)
            try:
                await self._append(msgspec.structs.replace(one, count=count))
            except Unavailable as error:
                log.warning("%s denied calls wait for the audit log: %s", count, error)
                self._sampling.restore({address: count, **untold})
                return

    async def _append(self, one: Entry) -> None:
        async with transaction(self._pool) as connection:
            await log_of.append(connection, one)

    async def _published_some(self) -> bool:
        """Whether there may be more."""
        async with transaction(self._pool) as connection:
            seq = await log_of.lock_published(connection)
            if seq is None:
                return False
            batch = await log_of.after(connection, seq, 100)
            for found in batch:
                event = AuditRecorded(**msgspec.structs.asdict(found))
                await self._bus.publish("audit.recorded.v1", encode(event), str(found.id))
            if batch:
                await log_of.set_published(connection, batch[-1].seq, batch[-1].hash)
        return len(batch) == 100
