"""The breakers as all replicas share them: a record a node in the key-value bucket `BREAKERS`, by compare-and-set.

It is NATS that holds them, because it is NATS that holds the routes: whoever cannot write a permit cannot publish that
the node is back either, and a replica that lost Postgres, or a Redis that lost its data, changes nothing here.
"""

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from common import breaker
from common.breaker import Breaker, Policy
from common.bus import Bus

BUCKET = "BREAKERS"


class Breakers:
    """Every method raises Unavailable while NATS cannot be reached."""

    def __init__(self, bus: Bus, holder: str, policy: Policy) -> None:
        """`holder` names this process; no other may have its name."""
        self._bus, self._holder = bus, holder
        self.policy = policy

    async def read(self, ids: Sequence[str]) -> Mapping[str, Breaker]:
        """Those of these nodes that have one."""
        entries = await asyncio.gather(*(self._entry(id) for id in ids))
        return {id: entry[0] for id, entry in zip(ids, entries, strict=True) if entry[0] is not None}

    async def keep(self, id: str, ours: Breaker) -> Breaker:
        """Store what became of it here, unless a later epoch is stored: returned is the one that holds."""
        while True:
            stored, revision = await self._entry(id)
            if stored is not None and stored.epoch >= ours.epoch:
                return stored
            if await self._bus.swap(BUCKET, id, msgspec.json.encode(ours), revision):
                return ours

    async def permit(self, id: str, ours: Breaker, now: float) -> Breaker:
        """Ask for the one permit to probe. Returned is the breaker that holds: ours is the permit if `holds` says so.

        `now`: seconds of the wall clock.
        """
        stored, revision = await self._entry(id)
        current = stored if stored is not None and stored.epoch >= ours.epoch else ours
        if self.holds(current):  # a probe of this process that came to nothing
            current = breaker.returned(current, current.epoch, now)
        permit = breaker.permitted(current, self._holder, now, self.policy)
        if permit is None:
            return current
        if await self._bus.swap(BUCKET, id, msgspec.json.encode(permit), revision):
            return permit
        return (await self._entry(id))[0] or current

    def holds(self, breaker: Breaker) -> bool:
        return breaker.state == "half_open" and breaker.holder == self._holder

    async def forget(self, id: str) -> None:
        """The node is no more."""
        await self._bus.remove(BUCKET, id)

    async def _entry(self, id: str) -> tuple[Breaker | None, int | None]:
        entry = await self._bus.entry(BUCKET, id)
        if entry is None:
            return None, None
        try:
            return msgspec.json.decode(entry[0], type=Breaker), entry[1]
        except (msgspec.ValidationError, msgspec.DecodeError):
            return None, entry[1]  # somebody wrote something else there; it is replaced
