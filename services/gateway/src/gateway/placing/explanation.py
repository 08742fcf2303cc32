"""What speaks for and against each node, and where a request would go: for people who ask why."""

from collections.abc import Mapping
from random import Random

import msgspec

from common.routing import Load, Node, Policy
from gateway.placing import affinity, cache, picking, queue, region, risk, strategy, warmth
from gateway.placing.filters import reason
from gateway.placing.known import Known
from gateway.placing.pool import Pool
from gateway.placing.wanted import Wanted


class Biases(msgspec.Struct, frozen=True):
    """In requests."""

    engine_queue: float
    kv_cache: float
    risk: float
    region: float


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    node_id: str
    region: str
    filtered: str | None
    """Why it cannot have the request; None: it can."""
    offered: bool
    """This time: of many nodes a few are, and of those that have just come up some."""
    preferred: int | None
    """Its place among those that are likely to have the beginning in their cache, from 1."""
    live: int
    pending_tokens: int
    capacity: int
    weight: float
    slow_start: float
    """Share of the decisions that it takes part in."""
    engine: Load
    biases: Biases
    score: float
    """Load with this request on it; the least wins."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    policy: Policy
    hashed_by: str | None
    """`session`, `user` or `prompt`; None: any node is as good."""
    bound: float
    """Times the average score that a preferred node may have; 0 is any."""
    nodes: list[Judged]
    pick: str | None


def explain(
    pool: Pool,
    wanted: Wanted,
    known: Known,
    live: Mapping[str, int],
    pending: Mapping[str, int],
    turn: int,
    random: Random,
) -> Explanation:
    offer = strategy.offer(pool, wanted, known, turn, random)
    offered = {place.id: number for number, place in enumerate(offer.places, 1)}
    everywhere = picking.Offer(
        tuple(strategy.place(node, pool, wanted, known) for node in pool.nodes), tokens=wanted.tokens
    )
    scores = picking.loads(everywhere, live, pending)
    key = affinity.key(wanted, pool.policy.strategy)

    def judged(node: Node, score: float) -> Judged:
        number = offered.get(node.id)
        load = known.load(node.id)
        away = region.bias(node, wanted) if pool.policy.region == "prefer" else 0.0
        return Judged(
            node_id=node.id,
            region=node.region,
            filtered=reason(node, wanted, pool.policy),
            offered=number is not None,
            preferred=number if number is not None and number <= offer.preferred else None,
            live=live.get(node.id, 0),
            pending_tokens=pending.get(node.id, 0),
            capacity=node.max_concurrency,
            weight=node.weight,
            slow_start=warmth.share(known.ready_for(node.id), pool.policy.slow_start_s),
            engine=load,
            biases=Biases(queue.bias(load), cache.bias(load), risk.bias(node), away),
            score=score,
        )

    return Explanation(
        policy=pool.policy,
        hashed_by=key.split(b"\0")[0].decode() if key else None,
        bound=offer.bound,
        nodes=[judged(node, score) for node, score in zip(pool.nodes, scores, strict=True)],
        pick=picking.pick(offer, live, pending, random.random()),
    )
