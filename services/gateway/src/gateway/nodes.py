"""The gateway's copy of the routing snapshot, followed from NATS; the last one holds while the scheduler is away."""

import asyncio
import logging

import msgspec

from common.bus import Bus
from common.errors import NotFound, Unavailable
from common.routing import BUCKET, KEY, Model, Node, Snapshot

log = logging.getLogger(__name__)


class Nodes:
    def __init__(self) -> None:
        self._by_model: dict[str, tuple[Node, ...]] = {}
        self._models: dict[str, Model] = {}
        self.deployed: frozenset[str] = frozenset()
        """Models for which a node may be started."""
        self.loaded = asyncio.Event()

    def replace(self, snapshot: Snapshot) -> None:
        by_model: dict[str, list[Node]] = {}
        models: dict[str, Model] = {id: Model(id) for id in snapshot.deployed}
        for node in snapshot.nodes:
            for model in node.models:
                by_model.setdefault(model.id, []).append(node)
                models[model.id] = model
        self._by_model = {model: tuple(nodes) for model, nodes in by_model.items()}
        self._models = models
        self.deployed = frozenset(snapshot.deployed)
        self.loaded.set()

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
        while True:
            try:
                async for value in bus.follow(BUCKET, KEY):
                    self.replace(msgspec.json.decode(value, type=Snapshot))
            except (Unavailable, msgspec.MsgspecError) as error:
                log.warning("the routing snapshot is not followed: %s", error)
            await asyncio.sleep(1)
