"""Postgres and the registry, while this replica leads: what admins wrote comes in, what was seen of nodes goes out."""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import get_args

from common.breaker import Breaker
from common.db import Pool, transaction
from common.errors import Unavailable
from common.routing import Node, State
from scheduler import policies, probes, store
from scheduler.breakers import Breakers
from scheduler.leader import Leader
from scheduler.metrics import NODES
from scheduler.poller import Poller
from scheduler.registry import Registry

log = logging.getLogger(__name__)

EVERY = 0.25  # seconds between two looks at who leads
RELOAD_EVERY = 5.0  # seconds; a poke may be lost
HEALTHY_AT_EVERY = 30.0  # seconds


class Keeper:
    """Postgres down: nodes are polled from memory and published on; their health is saved later. Logged once."""

    def __init__(self, pool: Pool, leader: Leader, registry: Registry, poller: Poller, breakers: Breakers) -> None:
        self._pool, self._leader, self._registry, self._poller = pool, leader, registry, poller
        self._breakers = breakers
        self._reload_at = self._healthy_at_at = 0.0
        self._lost = False

    def poke(self, _body: bytes = b"") -> None:
        """An admin has written: read it now."""
        self._reload_at = 0.0
        self._registry.health_changed.set()

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            self._registry.health_changed.clear()
            if self._leader.leading:
                try:
                    await self._load()
                    await self._save()
                    self._lost = False
                except Unavailable as error:
                    if not self._lost:
                        log.warning("nodes are polled from memory: %s", error)
                    self._lost = True
            elif self._registry.loaded:
                self._forget()
            self._count()
            try:
                async with asyncio.timeout(EVERY):
                    await self._registry.health_changed.wait()
            except TimeoutError:
                pass
        self._forget()

    async def _load(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._reload_at and self._registry.loaded:
            return
        self._reload_at = now + (EVERY if self._lost else RELOAD_EVERY)  # first: a poke while reading must not get lost
        async with transaction(self._pool) as connection:
            nodes, placed = await store.nodes(connection), await policies.policies(connection)
        self._registry.merge(nodes, await self._breakers_of(nodes), placed)
        self._poller.follow()

    async def _breakers_of(self, nodes: Sequence[Node]) -> Mapping[str, Breaker]:
        """Of those that are new here. NATS away: what Postgres says of their health is all there is."""
        try:
            return await self._breakers.read([node.id for node in nodes if node.id not in self._registry.vitals])
        except Unavailable as error:
            log.warning("breakers are not read: %s", error)
            return {}

    async def _save(self) -> None:
        now = asyncio.get_running_loop().time()
        for vital in self._registry.saveable:
            async with transaction(self._pool) as connection:
                await store.save_health(connection, vital)
            self._registry.saved(vital)
        if spent := self._registry.spent.copy():
            async with transaction(self._pool) as connection:
                await probes.add(connection, spent)
            self._registry.spent -= spent
        if now >= self._healthy_at_at:
            self._healthy_at_at = now + HEALTHY_AT_EVERY
            times = {id: vital.healthy_at for id, vital in self._registry.vitals.items() if vital.healthy_at}
            async with transaction(self._pool) as connection:
                await store.save_healthy_at(connection, times)

    def _forget(self) -> None:
        self._registry.clear()
        self._poller.follow()

    def _count(self) -> None:
        states = Counter(vital.node.state for vital in self._registry.vitals.values())
        for state in get_args(State):
            NODES.labels(state).set(states[state])
