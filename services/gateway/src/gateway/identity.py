"""Who calls: API keys looked up by SHA-256, cached for a short time, evicted at once when they change."""

import asyncio
import time
from collections import OrderedDict
from datetime import UTC, datetime

from prometheus_client import Counter

from common.db import Pool, transaction
from common.errors import Forbidden, InvalidApiKey, Unavailable
from common.events import KeyChanged
from gateway import keys
from gateway.last_used import LastUsed
from gateway.live import Caller
from gateway.store import callers
from gateway.store.api_keys import Scope

LOOKUPS = Counter("gateway_key_lookups", "API key lookups", ["found"])
UNKNOWN_SECONDS = 5.0
MOST = 100_000
STALE_SECONDS = 3600.0
"""How long a key is believed while Postgres is away."""


class Identity:
    def __init__(self, pool: Pool, seconds: float, last_used: LastUsed) -> None:
        self._pool = pool
        self._seconds = seconds
        self._last_used = last_used
        self._cache: OrderedDict[bytes, tuple[float, Caller | None]] = OrderedDict()
        self._changes = 0
        self._asking: dict[bytes, asyncio.Task[Caller | None]] = {}

    async def caller(self, key: str, scope: Scope = "inference") -> Caller:
        """Whom the key stands for; `scope` is what it is about to be used for.

        Raises InvalidApiKey, Forbidden (suspended tenant, missing scope) or Unavailable (unknown here, and Postgres is
        away).
        """
        if not keys.plausible(key):
            raise InvalidApiKey("the API key is not valid")
        digest = keys.digest(key)
        cached = self._cache.get(digest)
        if cached is None or cached[0] < time.monotonic():
            found = await self._look_up(digest, cached)
        else:
            found = cached[1]
        now = datetime.now(UTC)
        if found is None or (found.expires_at is not None and found.expires_at <= now):
            raise InvalidApiKey("the API key is not valid")
        if found.suspended:
            raise Forbidden("the tenant is suspended", code="tenant_suspended")
        if scope not in found.scopes:
            raise Forbidden(f"the API key lacks the scope `{scope}`", code="scope_missing")
        self._last_used.note(found.api_key_id, now)
        return found

    def changed(self, event: KeyChanged) -> None:
        self._changes += 1
        for text in event.hashes:
            self._cache.pop(bytes.fromhex(text), None)

    async def _look_up(self, digest: bytes, stale: tuple[float, Caller | None] | None) -> Caller | None:
        task = self._asking.get(digest)
        if task is None:  # a rush with one new key asks once
            task = asyncio.create_task(self._ask(digest))
            self._asking[digest] = task
            task.add_done_callback(lambda _: self._asking.pop(digest, None))
        try:
            return await asyncio.shield(task)
        except Unavailable:
            if stale is not None and stale[1] is not None and stale[0] + STALE_SECONDS > time.monotonic():
                return stale[1]
            raise

    async def _ask(self, digest: bytes) -> Caller | None:
        changes = self._changes
        async with transaction(self._pool) as connection:
            found = await callers.find(connection, digest)
        LOOKUPS.labels(str(found is not None).lower()).inc()
        if changes != self._changes:
            return found  # perhaps read before the change: good for this request, not to be believed for longer
        self._cache[digest] = (time.monotonic() + (self._seconds if found else UNKNOWN_SECONDS), found)
        self._cache.move_to_end(digest)
        while len(self._cache) > MOST:
            self._cache.popitem(last=False)
        return found
