"""The gateway's copy of the routing snapshot, followed from NATS; the last one holds while the scheduler is away."""

import asyncio
import logging
import time

import msgspec

from common.bus import Bus
from common.errors import NotFound, Unavailable
from common.routing import BUCKET, KEY, LOADS, Load, Loads, Model, Node, Policy, Snapshot
from gateway.placing.known import Known
from gateway.placing.pool import Pool

log = logging.getLogger(__name__)


STALE = 10.0
"""Seconds after which what the engines said of their load is no longer believed."""
NOTHING: dict[str, Load] = {}


class Nodes:
    def __init__(self) -> None:
        self._by_model: dict[str, tuple[Node, ...]] = {}
        self._models: dict[str, Model] = {}
        self.deployed: frozenset[str] = frozenset()
        """Models for which a node may be started."""
        self._policies: dict[str, Policy] = {}
        self._pools: dict[str, Pool] = {}
        self._up: dict[str, float | None] = {}
        """Nodes that are ready, and since when; None for those that were when we came."""
        self._loads, self._loads_at = NOTHING, 0.0
        self.loaded = asyncio.Event()

    def replace(self, snapshot: Snapshot, now: float | None = None) -> None:
        """`now` in monotonic seconds, from which the nodes that are new in it start slowly; None: at once."""
        by_model: dict[str, list[Node]] = {}
        models: dict[str, Model] = {id: Model(id) for id in snapshot.deployed}
        for node in snapshot.nodes:
            for model in node.models:
                by_model.setdefault(model.id, []).append(node)
                models[model.id] = model
        self._by_model = {model: tuple(nodes) for model, nodes in by_model.items()}
        self._models = models
        self.deployed = frozenset(snapshot.deployed)
        self._policies = {policy.model: policy for policy in snapshot.policies}
        self._pools = {model: Pool(nodes, self.policy(model)) for model, nodes in self._by_model.items()}
        since = now if self.loaded.is_set() else None
        self._up = {node.id: self._up.get(node.id, since) for node in snapshot.nodes if node.state == "ready"}
        self.loaded.set()

    def pool(self, model: str) -> Pool:
        """Raises NotFound."""
        return self._pools.get(model) or Pool(self.serving(model), self.policy(model))

    def policy(self, model: str) -> Policy:
        return self._policies.get(model) or Policy(model=model)

    def known(self, now: float) -> Known:
        return Known(self._loads if now - self._loads_at <= STALE else NOTHING, self._up, now)

    def heard(self, body: bytes, now: float) -> None:
        """What the engines say of their load."""
        try:
            self._loads, self._loads_at = msgspec.json.decode(body, type=Loads).nodes, now
        except msgspec.MsgspecError as error:
            log.warning("the loads of the engines are not read: %s", error)

    def serving(self, model: str) -> tuple[Node, ...]:
        """Every node that serves the model, in whatever state; none when it is deployed and has no node now.

        Raises NotFound.
        """
        nodes = self._by_model.get(model, ())
        if not nodes and model not in self._models:
            raise NotFound(f"the model `{model}` does not exist", param="model", code="model_not_found")
        return nodes

    def model(self, id: str) -> Model | None:
        return self._models.get(id)

    @property
    def models(self) -> tuple[Model, ...]:
        return tuple(self._models[id] for id in sorted(self._models))

    async def follow(self, bus: Bus) -> None:
        await bus.listen(LOADS, lambda body: self.heard(body, time.monotonic()))
        while True:
            try:
                async for value in bus.follow(BUCKET, KEY):
                    self.replace(msgspec.json.decode(value, type=Snapshot), time.monotonic())
            except (Unavailable, msgspec.MsgspecError) as error:
                log.warning("the routing snapshot is not followed: %s", error)
            await asyncio.sleep(1)
