"""A node for a request: the slot is taken in Redis, or counted locally while Redis is away."""

import random
from collections import Counter
from collections.abc import Set

import msgspec
from prometheus_client import Counter as Metric

from common.errors import NoCapacity, Overloaded, Unavailable
from common.routing import Node
from gateway.leases import Leases
from gateway.nodes import Nodes

LOCAL = Metric("gateway_local_placements", "Requests placed without Redis")


class Placed(msgspec.Struct, frozen=True):
    node: Node
    leased: bool
    """Redis holds the slot; otherwise the renewal writes it once Redis is back."""


class Placement:
    def __init__(self, nodes: Nodes, leases: Leases, ttl_ms: int) -> None:
        self._nodes = nodes
        self._leases = leases
        self._ttl_ms = ttl_ms
        self.live: Counter[str] = Counter()
        """This gateway's own requests by node."""

    async def place(self, id: str, model: str, intent: bytes, failed: Set[str]) -> Placed:
        """Raises NotFound, NoCapacity (no node is up, or none is left to try) or Overloaded (all are full)."""
        serving = self._nodes.serving(model)
        candidates = [node for node in serving if node.state == "ready" and node.id not in failed]
        if not candidates:
            raise NoCapacity(f"no node serves `{model}` at the moment", retry_after=5)
        try:
            taken = await self._leases.take(
                id,
                self._ttl_ms,
                intent,
                random.random(),  # noqa: S311  which of two equal nodes is no secret
                [(node.id, node.max_concurrency, node.weight) for node in candidates],
            )
        except Unavailable:
            LOCAL.inc()
            return Placed(self._least_loaded(candidates), leased=False)
        if taken is None:
            raise Overloaded(f"every node of `{model}` is busy", retry_after=1)
        return Placed(next(node for node in candidates if node.id == taken[0]), leased=True)

    def _least_loaded(self, candidates: list[Node]) -> Node:
        free = [node for node in candidates if not node.max_concurrency or self.live[node.id] < node.max_concurrency]
        if not free:
            raise Overloaded("every node is busy", retry_after=1)
        return min(free, key=lambda node: ((self.live[node.id] + 1) / node.weight, random.random()))  # noqa: S311
