"""Publishes, while this replica leads: the routes that gateways follow, and what became of nodes."""

import asyncio
import logging
import time

import msgspec

from common.bus import Bus, encode
from common.errors import Unavailable
from common.events import NodeLost, NodeRegistered, subject_of
from common.routing import BUCKET, KEY, Node, Policy, Snapshot
from scheduler.deployed import Deployed
from scheduler.leader import Leader
from scheduler.registry import Registry

log = logging.getLogger(__name__)

EVERY = 1.0  # seconds between two checks that the routes in force are ours


class Herald:
    """NATS down: tried again each second; logged once. NATS back without its data: published anew."""

    def __init__(self, bus: Bus, leader: Leader, registry: Registry, deployed: Deployed) -> None:
        self._bus, self._leader, self._registry, self._deployed = bus, leader, registry, deployed
        self._routes: tuple[tuple[Node, ...], tuple[str, ...], tuple[Policy, ...]] = ((), (), ())
        self._published: bytes | None = None
        self._lost = False

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            self._registry.routes_changed.clear()
            if self._leader.leading and self._registry.loaded:
                try:
                    await self._route()
                    await self._tell()
                    self._lost = False
                except Unavailable as error:
                    if not self._lost:
                        log.warning("routes are not published: %s", error)
                    self._lost = True
            try:
                async with asyncio.timeout(EVERY):
                    await self._registry.routes_changed.wait()
            except TimeoutError:
                pass

    async def _route(self) -> None:
        stored = await self._bus.get(BUCKET, KEY)
        ours = stored == self._published
        if stored is not None and self._published is not None and not ours and not self._leader.holding:
            # we led on without Postgres, and another replica has come to lead with it
            self._leader.yield_lead()
            return
        routes = self._registry.nodes, self._deployed.models, self._registry.policies
        if ours and stored is not None and routes == self._routes:
            return
        before = max(_version(stored), _version(self._published))
        body = msgspec.json.encode(Snapshot(next_version(before, time.time()), *routes))
        await self._bus.put(BUCKET, KEY, body)
        self._published, self._routes = body, routes

    async def _tell(self) -> None:
        for event in tuple(self._registry.events):
            await self._bus.publish(subject_of(event), encode(event), _message_id(event))
            self._registry.told(event)


def next_version(before: int, now: float) -> int:
    """Above `before`, and above what a server that lost its data may have held: milliseconds of the wall clock."""
    return max(before + 1, int(now * 1000))


def _version(body: bytes | None) -> int:
    try:
        return 0 if body is None else msgspec.json.decode(body, type=Snapshot).version
    except (msgspec.ValidationError, msgspec.DecodeError):
        return 0  # somebody wrote something else there; it is replaced


def _message_id(event: NodeRegistered | NodeLost) -> str:
    # a node is registered once in its life; when its first leader died before saving that, the next one says it again
    return f"node.registered.{event.node_id}" if isinstance(event, NodeRegistered) else str(event.id)
