"""One polling task for each node, at most `LOOKS` looks at once."""

import asyncio
import random
from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from common.breaker import due, returned
from common.errors import Unavailable
from common.routing import Outcome
from scheduler.breakers import Breakers
from scheduler.health import Vital, wanted
from scheduler.probe import Prober
from scheduler.registry import Registry

LOOKS = 256
SOONER = 0.25
"""Seconds at most until the second look after a first failure."""
SOONEST = 0.1
"""Seconds at least between two looks, however many gateways suspect a node."""


SUSPECTED = "node.suspected"
"""The subject on which a node's own agent has it looked at: the node's id."""
_outcomes = msgspec.json.Decoder(tuple[Outcome, ...])


class Poller:
    def __init__(
        self,
        registry: Registry,
        prober: Prober,
        breakers: Breakers,
        interval: float,
        tasks: asyncio.TaskGroup,
    ) -> None:
        """`interval` in seconds. A bug in a polling task ends the group, and with it the process."""
        self._registry, self._prober, self._breakers, self._interval = registry, prober, breakers, interval
        self._group = tasks
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wakes: dict[str, asyncio.Event] = {}
        self._looks = asyncio.Semaphore(LOOKS)

    def follow(self) -> None:
        """Poll exactly the nodes that are in the registry now."""
        for id in self._tasks.keys() - self._registry.vitals.keys():
            self._tasks.pop(id).cancel()
            del self._wakes[id]
        for id in self._registry.vitals.keys() - self._tasks.keys():
            self._wakes[id] = asyncio.Event()
            self._tasks[id] = self._group.create_task(self._poll(id, self._wakes[id]))

    def heard(self, body: bytes) -> None:
        """`node.outcomes`. A node that failed somebody is looked at at once. Nodes that are not polled here are another
        replica's business."""
        try:
            outcomes = _outcomes.decode(body)
        except (msgspec.ValidationError, msgspec.DecodeError):
            return
        for outcome in outcomes:
            if outcome.node_id in self._wakes and self._registry.heard(outcome, datetime.now(UTC), _random()):
                self._wakes[outcome.node_id].set()

    def suspect(self, body: bytes) -> None:
        if (wake := self._wakes.get(body.decode("latin-1"))) is not None:
            wake.set()

    async def _poll(self, id: str, wake: asyncio.Event) -> None:
        stored = 0  # the epoch that the shared record has
        while self._tasks.get(id) is asyncio.current_task() and (vital := self._registry.vitals.get(id)) is not None:
            wake.clear()
            pause = self._interval * (0.8 + 0.4 * _random())
            with suppress(Unavailable):  # nobody could be told that it is back; it is tried again
                if vital.breaker.epoch != stored:
                    held = await self._breakers.keep(id, vital.breaker)
                    self._registry.adopt(id, held, datetime.now(UTC))
                    stored = held.epoch
                    vital = self._registry.vitals.get(id, vital)
                if vital.node.state == "unhealthy":
                    pause = await self._probe(id, vital, pause)
            if vital.node.state != "unhealthy":
                pause = await self._look(id, vital, pause)
            await asyncio.sleep(min(pause, SOONEST))
            try:
                async with asyncio.timeout(max(pause - SOONEST, 0)):
                    await wake.wait()
            except TimeoutError:
                pass

    async def _look(self, id: str, vital: Vital, pause: float) -> float:
        """Returns how long to wait until the next."""
        now = asyncio.get_running_loop().time
        async with self._looks:
            seen = await self._prober.look(vital.node, wanted(vital, now()))
        self._registry.saw(id, seen, now(), datetime.now(UTC), _random())
        failed_once = not seen.healthy and vital.node.state == "ready" and not vital.failures
        return min(pause, SOONER) if failed_once else pause

    async def _probe(self, id: str, vital: Vital, pause: float) -> float:
        """The one probe of a node that is out of the routes, if it may be probed now and nobody else does.

        Dies this process, the permit lapses; is the probe cancelled, the permit is given back.
        """
        clock = datetime.now(UTC)
        if not due(vital.breaker, clock.timestamp()):
            return min(pause, max(vital.breaker.until - clock.timestamp(), SOONEST))
        permit = await self._breakers.permit(id, vital.breaker, clock.timestamp())
        self._registry.adopt(id, permit, clock)
        vital = self._registry.vitals.get(id, vital)
        if not self._breakers.holds(permit) or vital.breaker != permit:
            return pause
        now = asyncio.get_running_loop().time
        try:
            async with self._looks:
                seen = await self._prober.look(vital.node, wanted(vital, now()))
        except asyncio.CancelledError:
            with suppress(Unavailable):
                await self._breakers.keep(id, returned(permit, permit.epoch, datetime.now(UTC).timestamp()))
            raise
        after = self._registry.judged(id, seen, now(), datetime.now(UTC), _random())
        if after is not None and after.breaker.epoch > permit.epoch:
            held = await self._breakers.keep(id, after.breaker)
            if held == after.breaker:
                self._registry.put(after, datetime.now(UTC))
            else:  # it took too long, and somebody else has probed meanwhile
                self._registry.adopt(id, held, datetime.now(UTC))
        return SOONEST


def _random() -> float:
    return random.random()  # noqa: S311  jitter
