"""Asks the engines how busy they are, while this replica leads, and tells the gateways."""

import asyncio
from contextlib import suppress

import msgspec

from common.bus import Bus
from common.errors import Unavailable
from common.routing import LOADS, Load, Loads, Node
from scheduler.gauges import load
from scheduler.leader import Leader
from scheduler.probe import Prober
from scheduler.registry import Registry

AT_ONCE = 64
PER_SECOND = 200
"""Engines, at most: each answers with a hundred kilobytes."""


class Watcher:
    """An engine or NATS that does not answer is passed over: gateways count its requests themselves."""

    def __init__(self, bus: Bus, leader: Leader, registry: Registry, prober: Prober, interval: float) -> None:
        """`interval` in seconds."""
        self._bus, self._leader, self._registry, self._prober = bus, leader, registry, prober
        self._interval = interval
        self._at_once = asyncio.Semaphore(AT_ONCE)

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
        return None if text is None else load(text)
