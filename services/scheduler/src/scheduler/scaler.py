"""Asks for capacity while this replica leads: twice a second each model's demand is weighed against what is there.

| dies or is away | what happens |
|---|---|
| this replica, between writing a request and publishing it | the next leader publishes it, under the same id |
| Postgres | nothing is asked: an epoch that is not kept could be given twice |
| Redis | nothing is asked: no demand is known |
| NATS | it is published when it is back |
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from common.bus import Bus, encode
from common.db import Pool, transaction
from common.deployments import Deployment
from common.errors import Unavailable
from common.events import ScaleRequested, subject_of
from common.ids import new_id
from common.routing import Node
from scheduler import scaling
from scheduler.capacity import Memory, Policy, Signals, desired, fresh, scope
from scheduler.deployed import Deployed
from scheduler.leader import Leader
from scheduler.leases import Leases, Line
from scheduler.metrics import DESIRED
from scheduler.registry import Registry
from scheduler.scaling import Asked

log = logging.getLogger(__name__)

EVERY = 0.5  # seconds


class Scaler:
    def __init__(
        self,
        bus: Bus,
        pool: Pool,
        leases: Leases,
        leader: Leader,
        registry: Registry,
        deployed: Deployed,
        policy: Policy,
    ) -> None:
        self._bus, self._pool, self._leases = bus, pool, leases
        self._leader, self._registry, self._deployed, self._policy = leader, registry, deployed, policy
        self._asked: dict[str, Asked] | None = None
        self._memories: dict[str, Memory] = {}
        self._unpublished: dict[str, Asked] = {}
        self._lost = False

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            if self._leader.leading and self._registry.loaded:
                try:
                    await self._weigh(datetime.now(UTC))
                    self._lost = False
                except Unavailable as error:
                    if not self._lost:
                        log.warning("no capacity is asked for: %s", error)
                    self._lost = True
            elif not self._leader.leading:
                self._forget()
            try:
                async with asyncio.timeout(EVERY):
                    await stopping.wait()
            except TimeoutError:
                pass

    def _forget(self) -> None:
        self._asked = None
        self._memories.clear()
        self._unpublished.clear()

    async def _weigh(self, time: datetime) -> None:
        if self._asked is None:
            async with transaction(self._pool) as connection:
                self._asked = await scaling.all(connection)
            # whether the last leader came to publish them is not known
            self._unpublished = {model: one for model, one in self._asked.items() if model in self._deployed.by_model}
        await self._publish()
        self._memories = {model: one for model, one in self._memories.items() if model in self._deployed.by_model}
        if not self._deployed.by_model:
            DESIRED.set(0)
            return
        nodes = [node for node in self._registry.nodes if node.state == "ready"]
        lines = {line.name: line for line in await self._leases.lines()}
        live = await self._leases.live([node.id for node in self._registry.nodes])
        for model, deployments in self._deployed.by_model.items():
            serving = [node for node in nodes if any(one.id == model for one in node.models)]
            # what still runs on a node that is leaving will be somebody's to carry
            running = sum(
                live.get(node.id, 0) for node in self._registry.nodes if any(one.id == model for one in node.models)
            )
            await self._decide(model, deployments, _signals(serving, running, lines.get(model), deployments), time)
        DESIRED.set(sum(memory.replicas for memory in self._memories.values()))

    async def _decide(self, model: str, deployments: Sequence[Deployment], signals: Signals, time: datetime) -> None:
        assert self._asked is not None
        bounds, now = scope(deployments), time.timestamp()
        last = self._asked.get(model)
        memory = self._memories.get(model)
        if memory is None:
            memory = fresh(bounds, now, last.replicas, last.requested_at.timestamp()) if last else fresh(bounds, now)
        decision = desired(bounds, signals, now, memory, self._policy)
        if not decision.reason:
            self._memories[model] = decision.memory
            return
        asked = Asked(
            model=model,
            replicas=decision.replicas,
            # above what a database that was set back may have given already
            epoch=max(last.epoch + 1 if last else 1, int(now * 1000)),
            reason=decision.reason,
            event_id=new_id(),
            requested_at=time,
        )
        async with transaction(self._pool) as connection:
            latest = await scaling.ask(connection, asked)
        if not latest:
            self._forget()
            raise Unavailable(f"another replica has asked for {model} meanwhile")
        self._memories[model] = decision.memory
        self._asked[model] = self._unpublished[model] = asked
        log.info("%s replicas for %s: %s", asked.replicas, model, asked.reason)
        await self._publish()

    async def _publish(self) -> None:
        for model, asked in tuple(self._unpublished.items()):
            event = ScaleRequested(
                id=asked.event_id,
                time=asked.requested_at,
                model=model,
                replicas=asked.replicas,
                epoch=asked.epoch,
                reason=asked.reason,
            )
            await self._bus.publish(subject_of(event), encode(event), str(event.id))
            del self._unpublished[model]


def _signals(ready: Sequence[Node], running: int, line: Line | None, deployments: Sequence[Deployment]) -> Signals:
    told = [node.max_concurrency for node in ready if node.max_concurrency]
    return Signals(
        waiting=line.waiting if line else 0,
        waited=line.waited if line else 0.0,
        live=running,
        slots=min(told, default=0),
        others=max(len(ready) - sum(one.ready for one in deployments), 0),
    )
