"""Which replica polls the nodes and publishes the routes: the one whose session holds a Postgres advisory lock."""

import asyncio
import logging
from contextlib import suppress

from common.db import Connection, session, try_lock
from common.errors import Unavailable
from scheduler import store
from scheduler.metrics import LEADING

log = logging.getLogger(__name__)

LOCK = "scheduler.leader"
EVERY = 0.5  # seconds between two tries for the lock, and between two signs of life


class Leader:
    """A leader that loses Postgres goes on until another replica turns out to hold the lock, since routes must follow
    the nodes' health while the database is away. The keeper tells by the published snapshot when that has happened.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.leading = False
        self.holding = False
        """The lock is held at this moment, so nobody else can lead."""
        self.known = False
        """It has been found out once who leads."""

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            with suppress(Unavailable):
                async with session(self._dsn, LOCK) as connection:
                    await self._compete(connection, stopping)
            self.holding = False
            await asyncio.sleep(EVERY / 5)
        self.yield_lead()

    def yield_lead(self) -> None:
        if self.leading:
            log.info("another replica leads")
        self.leading = False
        LEADING.set(0)

    async def _compete(self, connection: Connection, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            if self.holding:
                await store.alive(connection)
            else:
                self.holding = await try_lock(connection, LOCK)
                self.known = True
                if self.holding and not self.leading:
                    log.info("this replica leads")
                    self.leading = True
                    LEADING.set(1)
                if not self.holding:
                    self.yield_lead()
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await stopping.wait()
