"""A node for a request: the slot is taken in Redis, or counted locally while Redis is away."""

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import TypeAlias

import msgspec
from prometheus_client import Counter as Metric

from common.errors import NoCapacity, Overloaded, Unavailable
from common.leases import line_of
from common.routing import Node
from gateway import limits
from gateway.ejection import Ejection
from gateway.leases import Ask, Leases
from gateway.nodes import Nodes
from gateway.outage import Outage
from gateway.placing import picking, strategy
from gateway.placing.explanation import Explanation, explain
from gateway.placing.picking import Offer
from gateway.placing.pool import Pool
from gateway.placing.wanted import Wanted

Tell: TypeAlias = Callable[[list[tuple[bytes, bytes]]], None]

LOCAL = Metric("gateway_local_placements", "Requests placed without Redis")
CHANCE = random.Random()  # noqa: S311  which of two equal nodes is no secret


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
        self._turns: Counter[str] = Counter()
        self.live: Counter[str] = Counter()
        """This gateway's own requests by node."""

    async def admit(self, id: str, model: str, intent: bytes, ask: Ask, tell: Tell, wanted: Wanted) -> Placed:
        """A slot, together with all that the request asks to be let in with. `tell` is given the headers.

        Raises as `place`, and Overloaded with `rate_limit_exceeded` or `insufficient_quota`.
        """
        pool, offer, wanted = self._offer(id, model, wanted)
        line = line_of(model, self.bound(model, wanted.region))
        if not ask.layers and ask.hold is None:
            return await self._take(id, line, intent, pool, offer, wanted)
        try:
            verdict = await self._leases.admit(id, self._ttl_ms, intent, offer, CHANCE.random(), line, ask)
            if verdict.kind == "full" and (wider := self._wider(pool, offer, wanted)):
                verdict = await self._leases.admit(id, self._ttl_ms, intent, wider, CHANCE.random(), line, ask)
        except Unavailable:
            self._outage.check(ask)
            return self._locally(pool, offer)
        self._outage.over()
        tell(limits.headers(verdict))
        if (refused := limits.refusal(verdict, ask)) is not None:
            raise refused
        return _placed(pool, verdict.which if verdict.kind == "ok" else None, model)

    async def place(self, id: str, model: str, intent: bytes, wanted: Wanted) -> Placed:
        """A slot for a request that has been admitted.

        Raises NotFound, NoCapacity (no node is up, or none is left to try) or Overloaded (all are full).
        """
        pool, offer, wanted = self._offer(id, model, wanted)
        return await self._take(id, "", intent, pool, offer, wanted)

    async def explain(self, model: str, wanted: Wanted) -> Explanation:
        """Where a request would go now, and why; nothing is taken. Raises NotFound, and Unavailable without Redis."""
        pool = self._nodes.pool(model)
        live, pending = await self._leases.loads([node.id for node in pool.nodes])
        known = self._nodes.known(time.monotonic())
        return explain(pool, wanted, known, live, pending, self._turns[model] + 1, CHANCE)

    def _offer(self, id: str, model: str, wanted: Wanted) -> tuple[Pool, Offer, Wanted]:
        """Also what the request wants with what this gateway leaves out."""
        pool = self._nodes.pool(model)
        self._turns[model] += 1
        known = self._nodes.known(time.monotonic())
        fit = wanted
        if out := self._ejection.out(pool.by_id, id):
            fit = msgspec.structs.replace(wanted, failed=wanted.failed | out)
        # a bad answer is better than none: what was left out comes again when nothing else is there
        offer = strategy.offer(pool, fit, known, self._turns[model], CHANCE)
        if not offer.places:
            offer = strategy.widest(pool, fit, known, CHANCE)
        if not offer.places and fit is not wanted:
            offer = strategy.widest(pool, wanted, known, CHANCE)
        if not offer.places:
            raise NoCapacity(f"no node serves `{model}` at the moment", retry_after=5)
        return pool, offer, fit

    def _wider(self, pool: Pool, offer: Offer, wanted: Wanted) -> Offer | None:
        """What to try when all of the offer is full; None: that was all."""
        if len(offer.places) == len(pool.ready):
            return None
        wider = strategy.widest(pool, wanted, self._nodes.known(time.monotonic()), CHANCE)
        return wider if len(wider.places) > len(offer.places) else None

    async def _take(self, id: str, line: str, intent: bytes, pool: Pool, offer: Offer, wanted: Wanted) -> Placed:
        """`line` "" does not stand behind those who wait: it has been let in before them."""
        try:
            taken = await self._leases.take(id, self._ttl_ms, intent, offer, CHANCE.random(), line)
            if taken is None and (wider := self._wider(pool, offer, wanted)):
                taken = await self._leases.take(id, self._ttl_ms, intent, wider, CHANCE.random(), line)
        except Unavailable:
            return self._locally(pool, offer)
        return _placed(pool, taken[0] if taken else None, pool.policy.model)

    def _locally(self, pool: Pool, offer: Offer) -> Placed:
        LOCAL.inc()
        chosen = picking.pick(offer, self.live, {}, CHANCE.random())
        if chosen is None:
            raise Overloaded("every node is busy", retry_after=1)
        return Placed(pool.by_id[chosen], leased=False)

    def bound(self, model: str, region: str) -> str:
        """The region that its requests must not leave; empty: they may."""
        return region if self._nodes.policy(model).region == "require" else ""

    def max_model_len(self, model: str) -> int:
        """Tokens of prompt and reply together; 0 where no engine says."""
        found = self._nodes.model(model)
        return found.max_model_len if found else 0


def _placed(pool: Pool, taken: str | None, model: str) -> Placed:
    if taken is None:
        raise Overloaded(f"every node of `{model}` is busy", retry_after=1)
    return Placed(pool.by_id[taken], leased=True)
