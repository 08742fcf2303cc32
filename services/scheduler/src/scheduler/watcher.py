"""Asks the engines how busy they are, while this replica leads, and tells the gateways."""

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from common.bus import Bus, encode
from common.errors import Unavailable
from common.events import NodeCounted, subject_of
from common.ids import new_id
from common.routing import LOADS, Load, Loads, Node
from scheduler.gauges import load, work
from scheduler.leader import Leader
from scheduler.probe import Prober
from scheduler.registry import Registry

AT_ONCE = 64
PER_SECOND = 200
"""Engines, at most: each answers with a hundred kilobytes."""


class Watcher:
    """An engine or NATS that does not answer is passed over: gateways count its requests themselves."""

    def __init__(
        self, bus: Bus, leader: Leader, registry: Registry, prober: Prober, interval: float, count_interval: float
    ) -> None:
        """Both in seconds: between two looks, and between two readings of an engine's counters that are told."""
        self._bus, self._leader, self._registry, self._prober = bus, leader, registry, prober
        self._interval = interval
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._count_interval = count_interval
        self._counted: dict[str, float] = {}

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            nodes = [node for node in self._registry.nodes if node.state == "ready"] if self._leader.leading else []
            if nodes:
                seen = await asyncio.gather(*map(self._ask, nodes))
                loads = {node.id: found for node, found in zip(nodes, seen, strict=True) if found is not None}
                with suppress(Unavailable):  # what was told last grows old, and is left out of account
                    await self._bus.tell(LOADS, msgspec.json.encode(Loads(loads)))
            try:
                async with asyncio.timeout(max(self._interval, len(nodes) / PER_SECOND)):
                    await stopping.wait()
            except TimeoutError:
                pass

    async def _ask(self, node: Node) -> Load | None:
        async with self._at_once:
            text = await self._prober.metrics(node)
        if text is None:
            return None
        now = time.monotonic()
        if now - self._counted.get(node.id, -self._count_interval) >= self._count_interval:
            self._counted[node.id] = now
            await self._tell_work(node, text)
        return load(text)

    async def _tell_work(self, node: Node, text: bytes) -> None:
        """Readings are absolute: of one that is lost, the next tells as well."""
        if models := work(text):
            event = NodeCounted(id=new_id(), time=datetime.now(UTC), node_id=node.id, models=models)
            with suppress(Unavailable):
                await self._bus.publish(subject_of(event), encode(event), str(event.id))
