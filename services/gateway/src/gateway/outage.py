"""Redis away: for a while limits and budgets are not kept, then what they limit is refused."""

import logging
import time

from prometheus_client import Counter, Gauge

from common.errors import Unavailable
from gateway.leases import Ask

log = logging.getLogger(__name__)

UNLIMITED = Counter("gateway_unlimited_requests", "Requests let in without their limits, while Redis was away")
CLOSED = Gauge("gateway_limits_closed", "1 while limited requests are refused because Redis is away")


class Outage:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None
        self._closed = False

    def over(self) -> None:
        """Redis has answered."""
        if self._since is not None:
            log.warning("limits are kept again, after %.1f s", time.monotonic() - self._since)
        self._since, self._closed = None, False
        CLOSED.set(0)

    def check(self, ask: Ask) -> None:
        """Raises Unavailable for what is limited, once it has lasted too long."""
        if not ask.layers and ask.hold is None:
            return
        now = time.monotonic()
        if self._since is None:
            self._since = now
            log.error("redis is away: limits are not kept for up to %g s", self._seconds)
        if now - self._since <= self._seconds:
            UNLIMITED.inc()
            return
        if not self._closed:
            self._closed = True
            CLOSED.set(1)
            log.error("redis is still away: limited requests are refused")
        raise Unavailable("limits cannot be checked at the moment", retry_after=5)
