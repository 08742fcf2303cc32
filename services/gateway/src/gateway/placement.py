"""A node for a request: the slot is taken in Redis, or counted locally while Redis is away."""

import random
from collections import Counter
from collections.abc import Callable, Set
from typing import TypeAlias

import msgspec
from prometheus_client import Counter as Metric

from common.errors import NoCapacity, Overloaded, Unavailable
from common.routing import Node
from gateway import limits
from gateway.ejection import Ejection
from gateway.leases import Ask, Leases
from gateway.nodes import Nodes
from gateway.outage import Outage

Tell: TypeAlias = Callable[[list[tuple[bytes, bytes]]], None]

LOCAL = Metric("gateway_local_placements", "Requests placed without Redis")


class Placed(msgspec.Struct, frozen=True):
    node: Node
    leased: bool
    """Redis holds the slot; otherwise the renewal writes it once Redis is back."""


class Placement:
    def __init__(self, nodes: Nodes, ejection: Ejection, leases: Leases, ttl_ms: int, fail_open: float) -> None:
        """`fail_open`: seconds without Redis after which limited requests are refused."""
        self._nodes = nodes
        self._ejection = ejection
        self._leases = leases
        self._ttl_ms = ttl_ms
        self._outage = Outage(fail_open)
        self.live: Counter[str] = Counter()
        """This gateway's own requests by node."""

    async def admit(self, id: str, model: str, intent: bytes, ask: Ask, tell: Tell) -> Placed:
        """A slot, together with all that the request asks to be let in with. `tell` is given the headers.

        Raises as `place`, and Overloaded with `rate_limit_exceeded` or `insufficient_quota`.
        """
        candidates = self._candidates(id, model, frozenset())
        if not ask.layers and ask.hold is None:
            return await self._take(id, model, model, intent, candidates)
        try:
            verdict = await self._leases.admit(id, self._ttl_ms, intent, _random(), model, ask, _offer(candidates))
        except Unavailable:
            self._outage.check(ask)
            return self._locally(candidates)
        self._outage.over()
        tell(limits.headers(verdict))
        if (refused := limits.refusal(verdict, ask)) is not None:
            raise refused
        return _placed(candidates, verdict.which if verdict.kind == "ok" else None, model)

    async def place(self, id: str, model: str, intent: bytes, failed: Set[str], revision: str | None) -> Placed:
        """A slot for a request that has been admitted, elsewhere than on the nodes that `failed`.

        `revision`: only where the model's weights are of that one.

        Raises NotFound, NoCapacity (no node is up, or none is left to try) or Overloaded (all are full).
        """
        return await self._take(id, "", model, intent, self._candidates(id, model, failed, revision))

    def _candidates(self, id: str, model: str, failed: Set[str], revision: str | None = None) -> list[Node]:
        serving = self._nodes.serving(model)
        candidates = [node for node in serving if node.state == "ready" and node.id not in failed]
        if revision is not None:
            candidates = [node for node in candidates if node.revision == revision]
        if not candidates:
            raise NoCapacity(f"no node serves `{model}` at the moment", retry_after=5)
        return self._ejection.fit(candidates, id)

    async def _take(self, id: str, line: str, model: str, intent: bytes, candidates: list[Node]) -> Placed:
        """`line` "" does not stand behind those who wait: it has been let in before them."""
        try:
            taken = await self._leases.take(id, self._ttl_ms, intent, _random(), line, _offer(candidates))
        except Unavailable:
            return self._locally(candidates)
        return _placed(candidates, taken[0] if taken else None, model)

    def _locally(self, candidates: list[Node]) -> Placed:
        LOCAL.inc()
        return Placed(self._least_loaded(candidates), leased=False)

    def max_model_len(self, model: str) -> int:
        """Tokens of prompt and reply together; 0 where no engine says."""
        found = self._nodes.model(model)
        return found.max_model_len if found else 0

    def _least_loaded(self, candidates: list[Node]) -> Node:
        free = [node for node in candidates if not node.max_concurrency or self.live[node.id] < node.max_concurrency]
        if not free:
            raise Overloaded("every node is busy", retry_after=1)
        return min(free, key=lambda node: ((self.live[node.id] + 1) / node.weight, random.random()))  # noqa: S311


def _random() -> float:
    return random.random()  # noqa: S311  which of two equal nodes is no secret


def _offer(candidates: list[Node]) -> list[tuple[str, int, float]]:
    return [(node.id, node.max_concurrency, node.weight) for node in candidates]


def _placed(candidates: list[Node], taken: str | None, model: str) -> Placed:
    if taken is None:
        raise Overloaded(f"every node of `{model}` is busy", retry_after=1)
    return Placed(next(node for node in candidates if node.id == taken), leased=True)
