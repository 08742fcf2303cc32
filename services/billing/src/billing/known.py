"""Which tenants there are: usage of one that nobody knows is parked, not owed by nobody.

The gateway, which owns tenants, is asked once for each. While it does not answer all are taken for known: charging
waits for nobody.
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from uuid import UUID

from billing import tenants
from common.bus import Bus
from common.errors import NotFound, Unavailable

log = logging.getLogger(__name__)

PATIENCE = 2.0  # seconds for an answer
PAUSE = 10.0  # seconds without questions after none came


class Known:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._known: set[UUID] = set()
        self._ask_from = 0.0

    async def strangers(self, ids: Iterable[UUID]) -> set[UUID]:
        """Those of the tenants that do not exist."""
        asked = set(ids) - self._known
        if not asked or time.monotonic() < self._ask_from:
            return set()
        answers = dict(zip(asked, await asyncio.gather(*map(self._exists, asked)), strict=True))
        self._known |= {id for id, exists in answers.items() if exists}
        if None in answers.values():
            self._ask_from = time.monotonic() + PAUSE
        return {id for id, exists in answers.items() if exists is False}

    async def _exists(self, id: UUID) -> bool | None:
        """None without an answer."""
        try:
            async with asyncio.timeout(PATIENCE):
                await tenants.profile(self._bus, id)
        except NotFound:
            return False
        except (Unavailable, TimeoutError) as error:
            log.warning("tenant %s is taken for known: %r", id, error)
            return None
        return True
