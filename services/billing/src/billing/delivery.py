"""Notices on their way out, at least once: claimed, sent, and only then marked.

Who dies between sending and marking leaves a lease that ends; then it is sent again, with the same id.
"""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from billing import notice_store, signature
from billing.metrics import NOTICES
from billing.notice import Fact, Notice
from billing.notice_store import Due
from billing.senders import NotSent, Senders, jitter
from common.db import Pool, transaction
from common.errors import Unavailable

log = logging.getLogger(__name__)

AT_ONCE = 20
PATIENCE = timedelta(days=5)
"""A channel to which nothing could be sent for this long is switched off."""


class Delivery:
    def __init__(
        self, pool: Pool, senders: Senders, *, lease: float, first_pause: float, interval: float = 0.5
    ) -> None:
        """Seconds: `lease` is longer than a try takes, `first_pause` comes after the first try."""
        self._pool = pool
        self._senders = senders
        self._lease = lease
        self._first_pause = first_pause
        self._interval = interval

    async def run(self) -> None:
        """For as long as the service; what is under way when it ends is sent again later."""
        while True:
            try:
                while await self._some():
                    pass
            except Unavailable as error:
                log.warning("notices wait: %s", error)
            await asyncio.sleep(self._interval)

    async def _some(self) -> bool:
        async with transaction(self._pool) as connection:
            claimed = await notice_store.claim(connection, self._lease, AT_ONCE)
        await asyncio.gather(*(self._try(due) for due in claimed))
        return len(claimed) == AT_ONCE

    async def _try(self, due: Due) -> None:
        try:
            if due.channel.disabled_at is not None:
                raise NotSent("the channel is switched off")
            await self._senders.send(due)
        except NotSent as error:
            await self._failed(due, error)
        else:
            NOTICES.labels(due.channel.kind, "sent").inc()
            async with transaction(self._pool) as connection:
                await notice_store.sent(connection, due)

    async def _failed(self, due: Due, error: NotSent) -> None:
        channel = due.channel
        NOTICES.labels(channel.kind, "failed").inc()
        log.warning("notice %s did not reach channel %s: %s", due.notice_id, channel.id, error)
        off = channel.disabled_at is not None
        pause = None if off or error.gone else signature.pause(due.attempts, self._first_pause, jitter())
        async with transaction(self._pool) as connection:
            since = await notice_store.failed(connection, due, str(error), pause)
            lasting = error.gone or datetime.now(UTC) - since > PATIENCE
            if not off and lasting and await notice_store.disable(connection, channel.id):
                log.error("channel %s is switched off: %s", channel.id, error)
                facts: dict[str, Fact] = {"kind": channel.kind, "channel_id": str(channel.id), "reason": str(error)}
                key = f"channel.disabled:{channel.id}:{since.isoformat()}"
                told = Notice(topic="channel.disabled", key=key, tenant_id=channel.tenant_id, facts=facts)
                await notice_store.tell(connection, [told])
