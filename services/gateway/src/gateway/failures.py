"""Wrong credentials, counted by all gateways together; each on its own while NATS is away."""

import logging
import time
from uuid import UUID, uuid4

import msgspec

from common.bus import Bus
from common.errors import Unavailable
from gateway.throttle import Throttle

log = logging.getLogger(__name__)
SUBJECT = "auth.failed"


class Failed(msgspec.Struct, frozen=True):
    address: str
    gateway: UUID
    """Which process told it, because it hears itself as well."""


class Failures:
    def __init__(self, bus: Bus, throttle: Throttle) -> None:
        self._bus = bus
        self._throttle = throttle
        self._self = uuid4()

    async def listen(self) -> None:
        await self._bus.listen(SUBJECT, self._heard)

    def check(self, address: str) -> None:
        """Raises Overloaded with `retry_after` while the address has failed too often."""
        self._throttle.check(address, time.monotonic())

    async def count(self, address: str) -> None:
        self._throttle.failed(address, time.monotonic())
        try:
            await self._bus.tell(SUBJECT, msgspec.json.encode(Failed(address, self._self)))
        except Unavailable as error:
            log.warning("a wrong credential is counted here alone: %s", error)

    def _heard(self, body: bytes) -> None:
        failed = msgspec.json.decode(body, type=Failed)
        if failed.gateway != self._self:
            self._throttle.failed(failed.address, time.monotonic())
