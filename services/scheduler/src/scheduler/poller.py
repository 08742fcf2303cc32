"""One polling task for each node, at most `LOOKS` looks at once."""

import asyncio
import random
from datetime import UTC, datetime

import msgspec

from scheduler.health import wanted
from scheduler.probe import Prober
from scheduler.registry import Registry

LOOKS = 256
SOONER = 0.25
"""Seconds at most until the second look after a first failure."""
SOONEST = 0.1
"""Seconds at least between two looks, however many gateways suspect a node."""


class Suspicion(msgspec.Struct, frozen=True):
    """`node.suspected`: a gateway could not connect to a node."""

    node_id: str


class Poller:
    def __init__(self, registry: Registry, prober: Prober, interval: float, tasks: asyncio.TaskGroup) -> None:
        """`interval` in seconds. A bug in a polling task ends the group, and with it the process."""
        self._registry, self._prober, self._interval = registry, prober, interval
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

    def suspect(self, body: bytes) -> None:
        """Look at once. Nodes that are not polled here are another replica's business."""
        try:
            id = msgspec.json.decode(body, type=Suspicion).node_id
        except (msgspec.ValidationError, msgspec.DecodeError):
            return
        if id in self._wakes:
            self._wakes[id].set()

    async def _poll(self, id: str, wake: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        while (vital := self._registry.vitals.get(id)) is not None:
            wake.clear()
            async with self._looks:
                seen = await self._prober.look(vital.node, wanted(vital, loop.time()))
            self._registry.saw(id, seen, loop.time(), datetime.now(UTC))
            failed_once = not seen.healthy and vital.node.state == "ready" and not vital.failures
            pause = self._interval * random.uniform(0.8, 1.2)  # noqa: S311  jitter
            if failed_once:
                pause = min(pause, SOONER)
            await asyncio.sleep(min(pause, SOONEST))
            try:
                async with asyncio.timeout(max(pause - SOONEST, 0)):
                    await wake.wait()
            except TimeoutError:
                pass
