"""When keys were last used: noted in memory by each request, written in batches behind their backs."""

import asyncio
import logging
from datetime import datetime
from uuid import UUID

from common.db import Pool, transaction
from common.errors import Unavailable
from gateway.store import api_keys

log = logging.getLogger(__name__)


class LastUsed:
    def __init__(self, pool: Pool, seconds: float) -> None:
        """Written every `seconds`: for each key so often at most."""
        self._pool = pool
        self._seconds = seconds
        self._times: dict[UUID, datetime] = {}

    def note(self, key: UUID, at: datetime) -> None:
        self._times[key] = at

    async def write(self) -> None:
        """What could not be written waits for the next time."""
        times, self._times = self._times, {}
        if not times:
            return
        try:
            async with transaction(self._pool) as connection:
                await api_keys.used(connection, times)
        except Unavailable as error:
            self._times = {**times, **self._times}
            log.warning("the last use of %s keys is not written yet: %s", len(times), error)

    async def keep_writing(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            await self.write()
