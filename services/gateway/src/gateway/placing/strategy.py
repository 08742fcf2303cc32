"""What each strategy offers a request: which nodes, in which order, and for which of them it would rather wait.

Of a large pool a few are offered at random: the least loaded of eight is hardly worse than that of a thousand.
"""

from collections.abc import Sequence
from random import Random

from common.routing import Node
from gateway.placing import affinity, cache, queue, region, risk, warmth
from gateway.placing.filters import reason
from gateway.placing.known import Known
from gateway.placing.picking import Offer, Place
from gateway.placing.pool import Pool
from gateway.placing.wanted import Wanted

FEW = 8
MANY = 128
"""When the few are full."""


def offer(pool: Pool, wanted: Wanted, known: Known, turn: int, random: Random) -> Offer:
    """Without places when no node is fit. `turn` is the number of the request, for `round_robin`."""
    nodes = pool.home(wanted)
    preferred, bound = 0, 0.0
    match pool.policy.strategy:
        case "round_robin":
            chosen = _rotated(pool, nodes, wanted, turn)
            preferred = len(chosen)
        case "weighted":
            chosen = _drawn(pool, nodes, wanted, random)
            preferred = len(chosen)
        case "random":
            chosen = _some(pool, nodes, wanted, random)
            random.shuffle(chosen)
            preferred = len(chosen)
        case strategy:
            first = _own(pool, wanted)
            chosen = [*first, *(node for node in _some(pool, nodes, wanted, random) if node not in first)]
            preferred, bound = len(first), affinity.BOUNDS[strategy]
    warm = _warm(pool, chosen, known, random)
    preferred = sum(node in chosen[:preferred] for node in warm)
    places = tuple(place(node, pool, wanted, known) for node in warm)
    return Offer(places, preferred, bound, wanted.tokens)


def widest(pool: Pool, wanted: Wanted, known: Known, random: Random) -> Offer:
    """When what was offered first is full: as many as one call can weigh, those of other regions too."""
    fit = [node for node in pool.ready if reason(node, wanted, pool.policy) is None]
    some = random.sample(fit, MANY) if len(fit) > MANY else fit
    return Offer(tuple(place(node, pool, wanted, known) for node in some), tokens=wanted.tokens)


def place(node: Node, pool: Pool, wanted: Wanted, known: Known) -> Place:
    load = known.load(node.id)
    against = queue.bias(load) + cache.bias(load) + risk.bias(node)
    if pool.policy.region == "prefer":
        against += region.bias(node, wanted)
    return Place(node.id, node.max_concurrency, node.weight, against)


def _warm(pool: Pool, nodes: Sequence[Node], known: Known, random: Random) -> list[Node]:
    """Those that take part this time; all, when it would be none."""
    slow = pool.policy.slow_start_s
    found = []
    for node in nodes:
        share = warmth.share(known.ready_for(node.id), slow)
        if share >= 1 or random.random() < share:
            found.append(node)
    return found or list(nodes)


def _own(pool: Pool, wanted: Wanted) -> list[Node]:
    """Where the request's session or beginning belongs."""
    key = affinity.key(wanted, pool.policy.strategy)
    if key is None:
        return []
    found: list[Node] = []
    for id in pool.ring.order(key):
        node = pool.by_id[id]
        if reason(node, wanted, pool.policy) is None and not (
            pool.policy.region == "prefer" and region.elsewhere(node, wanted)
        ):
            found.append(node)
            if len(found) == affinity.PREFERRED:
                break
    return found


def _some(pool: Pool, nodes: Sequence[Node], wanted: Wanted, random: Random) -> list[Node]:
    if len(nodes) > 2 * FEW:
        found = [node for node in random.sample(nodes, 2 * FEW) if reason(node, wanted, pool.policy) is None]
        if len(found) >= FEW:
            return found[:FEW]
    found = [node for node in nodes if reason(node, wanted, pool.policy) is None]
    return random.sample(found, FEW) if len(found) > FEW else found


def _rotated(pool: Pool, nodes: Sequence[Node], wanted: Wanted, turn: int) -> list[Node]:
    found: list[Node] = []
    for number in range(len(nodes)):
        node = nodes[(turn + number) % len(nodes)]
        if reason(node, wanted, pool.policy) is None:
            found.append(node)
            if len(found) == FEW:
                break
    return found


def _drawn(pool: Pool, nodes: Sequence[Node], wanted: Wanted, random: Random) -> list[Node]:
    """In an order in which each comes first as often as its weight says."""
    fit = [node for node in nodes if reason(node, wanted, pool.policy) is None]
    if len(fit) > FEW:
        fit = random.choices(fit, [node.weight for node in fit], k=FEW)
        return [node for number, node in enumerate(fit) if node not in fit[:number]]
    # Efraimidis and Spirakis, 2006
    return sorted(fit, key=lambda node: random.random() ** (1 / node.weight), reverse=True)
