"""The loop of the replica that leads: reads what is desired and what is there, decides, and carries it out."""

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from common.bus import Bus, encode
from common.db import Pool, transaction
from common.deployments import BUCKET, KEY, Snapshot, Spec
from common.deployments import Deployment as Published
from common.errors import InvalidRequest, Unavailable
from common.ids import new_id
from common.run import cancelled
from provisioner import deployment_store, launch_store, reconcile
from provisioner.choosing import Ended
from provisioner.deployment_store import Deployment
from provisioner.launcher import Candidate, Launcher
from provisioner.leader import Leader
from provisioner.life import Life
from provisioner.metrics import LEAKED, MACHINES, STARTED, STRANGE
from provisioner.money import micro
from provisioner.nodes import Node, Nodes
from provisioner.offers import Offers
from provisioner.reconcile import Desired, Drain, End, Launch, Observation, Patience, Start, Wait, diff, target

log = logging.getLogger(__name__)

POKE = "provisioner.poke"
EVERY = 0.5
"""Seconds between two looks."""
OBSERVE_EVERY = {"local": 0.5, "sky": 20.0}
"""Seconds between two listings of a launcher's machines; of the cloud's own, which takes some."""


class World(msgspec.Struct, frozen=True):
    """What Postgres says, at `now`."""

    now: datetime
    deployments: list[Deployment]
    specs: dict[tuple[UUID, int], Spec]
    launches: list[Launch]
    ended: list[Ended]
    spent: dict[UUID, int]


class Fleet:
    """Postgres, the scheduler or a launcher away: what needs it waits, all else goes on."""

    def __init__(
        self,
        pool: Pool,
        bus: Bus,
        leader: Leader,
        launchers: Mapping[str, Launcher],
        offers: Offers,
        nodes: Nodes,
        life: Life,
        patience: Patience,
    ) -> None:
        self._pool, self._bus, self._leader = pool, bus, leader
        self._launchers, self._offers, self._nodes, self._life, self._patience = (
            launchers,
            offers,
            nodes,
            life,
            patience,
        )
        self._poked = asyncio.Event()
        self._tasks: dict[object, asyncio.Task[None]] = {}
        self._seen: dict[str, Observation] = {}
        self._unhealthy: dict[UUID, datetime] = {}
        self._published: tuple[Published, ...] | None = None
        self._strange: set[str] = set()

    def poke(self, _body: bytes = b"") -> None:
        """Something has changed: look now."""
        self._poked.set()

    async def run(self, stopping: asyncio.Event) -> None:
        try:
            while not stopping.is_set():
                self._poked.clear()
                if self._leader.leading:
                    try:
                        await self.look()
                    except Unavailable as error:
                        log.warning("the fleet waits: %s", error)
                else:
                    self._published = None
                with suppress(TimeoutError):
                    async with asyncio.timeout(EVERY):
                        await self._poked.wait()
        finally:
            await cancelled(self._tasks.values())

    async def look(self) -> None:
        """Once. Raises Unavailable."""
        world = await self._read()
        nodes = await self._ask_nodes()
        self._watch_health(world, nodes)
        for name, launcher in self._launchers.items():
            self._begin(name, self._observe(name, launcher, world.now))
        seen = {name: seen for name, seen in self._seen.items() if _recent(name, seen, world.now)}
        desired = [await self._desired(world, one) for one in world.deployments]
        decisions = diff(desired, world.launches, seen, world.ended, self._unhealthy, world.now, self._patience)
        await self._carry_out(world, decisions)
        for launch in world.launches:
            spec = world.specs[launch.deployment_id, launch.generation]
            current = next((d.spec for d in world.deployments if d.id == launch.deployment_id), spec)
            spec = msgspec.structs.replace(spec, weight=current.weight)
            self._begin(launch.id, self._life.advance(launch, spec, nodes, world.now))
        await self._sweep(world, seen)
        await self._publish(world)
        for state in ("intended", "launching", "warming", "ready", "draining", "ending"):
            MACHINES.labels(state).set(sum(launch.state == state for launch in world.launches))

    async def _read(self) -> World:
        async with transaction(self._pool) as connection:
            deployments = await deployment_store.listed(connection)
            launches = await launch_store.live(connection)
            ids = {one.id for one in deployments} | {launch.deployment_id for launch in launches}
            return World(
                await launch_store.now(connection),
                deployments,
                await deployment_store.specs(connection, sorted(ids)),
                launches,
                await launch_store.recently_ended(connection),
                await launch_store.spent_this_month(connection),
            )

    async def _ask_nodes(self) -> dict[str, Node] | None:
        try:
            return await self._nodes.all()
        except Unavailable as error:
            log.warning("nodes are not known: %s", error)
            return None

    def _watch_health(self, world: World, nodes: Mapping[str, Node] | None) -> None:
        """From when on a node has been unhealthy, as this replica saw it."""
        if nodes is None:
            return
        bad = {
            launch.id
            for launch in world.launches
            if (node := nodes.get(launch.node_id or "")) is not None and node.state == "unhealthy"
        }
        self._unhealthy = {id: self._unhealthy.get(id, world.now) for id in bad}

    async def _observe(self, name: str, launcher: Launcher, now: datetime) -> None:
        seen = self._seen.get(name)
        if seen is None or now - seen.at >= timedelta(seconds=OBSERVE_EVERY[name]):
            self._seen[name] = Observation(now, await launcher.observe())
            self.poke()

    async def _desired(self, world: World, one: Deployment) -> Desired:
        cap = one.spec.max_monthly_usd
        desired = Desired(
            id=one.id,
            wanted=one.replicas if one.status == "active" else 0,
            generation=one.generation,
            good_generation=one.good_generation,
            on_demand=one.spec.on_demand_replicas,
            max_hourly_microusd=None if one.spec.max_hourly_usd is None else micro(one.spec.max_hourly_usd),
            spent=cap is not None and world.spent.get(one.id, 0) >= micro(cap),
        )
        generation = target(desired, world.ended)
        fresh = [
            launch
            for launch in world.launches
            if launch.deployment_id == one.id and launch.generation == generation and launch.state in reconcile.RISING
        ]
        if len(fresh) >= desired.wanted:  # none is started: nobody need be asked
            return desired
        return msgspec.structs.replace(desired, offers=await self._ask_offers(world.specs[one.id, generation]))

    async def _ask_offers(self, spec: Spec) -> tuple[Candidate, ...] | None:
        try:
            return tuple(await self._offers.of(spec))
        except (Unavailable, InvalidRequest) as error:
            log.warning("nothing can be launched for %s: %s", spec.name, error)
            return None

    async def _carry_out(self, world: World, decisions: Sequence[reconcile.Decision]) -> None:
        waiting = {decision.deployment_id: decision.reason for decision in decisions if isinstance(decision, Wait)}
        launchers = {one.id: one.spec.launcher for one in world.deployments}
        busy = {launch.deployment_id for launch in world.launches}
        async with transaction(self._pool) as connection:
            for decision in decisions:
                match decision:
                    case Start():
                        started = await launch_store.intend(
                            connection, new_id(), decision, launchers[decision.deployment_id]
                        )
                        STARTED.inc(started is not None)
                    case Drain(launch, reason):
                        await launch_store.move(connection, launch, "draining", reason=reason)
                    case End(launch, reason, failure):
                        await launch_store.move(connection, launch, "ending", reason=reason, failure=failure)
                    case Wait():
                        pass
            for one in world.deployments:
                await deployment_store.wait(connection, one.id, waiting.get(one.id, ""))
                if one.status == "deleting" and one.id not in busy:
                    await deployment_store.mark(connection, one.id, "deleted")
        if any(not isinstance(decision, Wait) for decision in decisions):
            log.info("decided: %s", ", ".join(_brief(decision) for decision in decisions))
            self.poke()

    async def _sweep(self, world: World, seen: Mapping[str, Observation]) -> None:
        """What a launcher has whose launch has ended is a leak, and ended again. What nobody knows is only counted:
        another installation may share the launcher."""
        live = {launch.cluster for launch in world.launches}
        found = {cluster: name for name, one in seen.items() for cluster in one.machines if cluster not in live}
        async with transaction(self._pool) as connection:
            ended = await launch_store.ended_clusters(connection, sorted(found))
        for cluster in ended:
            if self._begin(cluster, self._launchers[found[cluster]].down(cluster)):
                LEAKED.inc()
                log.warning("%s was there after its end: taken down", cluster)
        strange = found.keys() - set(ended)
        for cluster in strange - self._strange:
            log.warning("machine %s of launcher %s is not known here", cluster[:100], found[cluster])
        self._strange = set(strange)
        STRANGE.set(len(strange))

    async def _publish(self, world: World) -> None:
        """For the scheduler; only when it has changed, or this replica has just begun to lead."""
        told = tuple(_published(one, world.launches) for one in world.deployments)
        if told == self._published:
            return
        async with transaction(self._pool) as connection:
            version = await deployment_store.next_version(connection)
        await self._bus.put(BUCKET, KEY, encode(Snapshot(version, told)))
        self._published = told

    def _begin(self, key: object, work: Coroutine[Any, Any, None]) -> bool:  # Any: what coroutines send
        """In a task of its own, unless the last one for that key still runs."""
        running = self._tasks.get(key)
        if running is not None and not running.done():
            work.close()
            return False
        self._tasks = {key: task for key, task in self._tasks.items() if not task.done()}
        self._tasks[key] = asyncio.create_task(_guarded(key, work))
        return True


async def _guarded(key: object, work: Coroutine[Any, Any, None]) -> None:
    """What one machine meets must not stop the others; it is tried again at the next look."""
    try:
        await work
    except Unavailable as error:
        log.warning("%s waits: %s", key, error)
    except Exception:  # a bug, or a launcher that fails in its own way
        log.exception("%s failed", key)


def _recent(name: str, seen: Observation, now: datetime) -> bool:
    """Older than that, the launcher has stopped to answer, and what it said is no reason to give a machine up."""
    return now - seen.at < timedelta(seconds=3 * OBSERVE_EVERY[name] + 60)


def _published(one: Deployment, launches: Sequence[Launch]) -> Published:
    return Published(
        id=one.id,
        name=one.name,
        model=one.model,
        min_replicas=one.spec.min_replicas,
        max_replicas=one.spec.max_replicas,
        idle_timeout_s=one.spec.idle_timeout_s,
        target_concurrency=one.spec.target_concurrency,
        status="active" if one.status == "active" else "deleting",
        replicas=one.replicas,
        ready=sum(launch.deployment_id == one.id and launch.state == "ready" for launch in launches),
        reason=one.waiting,
    )


def _brief(decision: reconcile.Decision) -> str:
    match decision:
        case Start(deployment_id, slot, generation, candidate):
            return f"start {deployment_id}/{slot} generation {generation} on {candidate.cloud}/{candidate.region}"
        case Drain(launch, reason):
            return f"drain {launch.cluster} ({reason})"
        case End(launch, reason, _):
            return f"end {launch.cluster} ({reason})"
        case Wait(deployment_id, reason):
            return f"wait for {deployment_id} ({reason})"
