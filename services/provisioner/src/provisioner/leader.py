"""Which replica starts and ends machines: the one whose session holds a Postgres advisory lock, while it holds it."""

import asyncio
import logging
from contextlib import suppress

from common.db import session, try_lock
from common.errors import Unavailable
from provisioner.metrics import LEADING

log = logging.getLogger(__name__)

LOCK = "provisioner.leader"
EVERY = 0.5  # seconds between two tries for the lock, and between two signs of life


class Leader:
    """Unlike the scheduler's, this one does nothing while the database is away: intentions could not be stored."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.leading = False
        self.known = False
        """It has been found out once who leads."""

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            with suppress(Unavailable):
                async with session(self._dsn, LOCK) as connection:
                    while not stopping.is_set():
                        if self.leading:
                            await connection.execute("select 1")
                        else:
                            self._lead(await try_lock(connection, LOCK))
                        self.known = True
                        await _pause(stopping)
            self._lead(False)
            await _pause(stopping)

    def _lead(self, leading: bool) -> None:
        if leading != self.leading:
            log.info("this replica leads" if leading else "this replica does not lead any more")
        self.leading = leading
        LEADING.set(leading)


async def _pause(stopping: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(EVERY):
            await stopping.wait()
