"""An hour of churn on equal nodes, in virtual time, with the pick that Redis makes: nobody gets more than others."""

import heapq
from collections import Counter
from random import Random

import pytest

from common.routing import Node, Policy
from gateway.placing import picking, strategy
from gateway.placing.known import Known
from gateway.placing.pool import Pool
from gateway.placing.wanted import Wanted

HOUR, RATE, LENGTH, TTL = 3600.0, 24.0, 10.0, 5.0
"""Seconds; requests a second; mean seconds of one; until the leases of a gateway that was killed are given back."""


@pytest.mark.parametrize("count", [6, 12])
def test_after_an_hour_the_spread_is_within_ten_percent(count: int) -> None:
    random = Random(11)
    pool = Pool(tuple(Node(id=f"n{number}", endpoint="http://n", state="ready") for number in range(count)), Policy())
    live: Counter[str] = Counter()
    pending: Counter[str] = Counter()
    served: Counter[str] = Counter()
    leases: dict[int, tuple[str, int, int]] = {}
    ends: list[tuple[float, int]] = []
    now, number, kill_at = 0.0, 0, 60.0
    while now < HOUR:
        now += random.expovariate(RATE)
        while ends and ends[0][0] <= now:
            _, ended = heapq.heappop(ends)
            if ended in leases:
                id, tokens, _ = leases.pop(ended)
                live[id] -= 1
                pending[id] -= tokens
        if now >= kill_at:  # one of three gateways dies: its requests end, unreturned until their leases expire
            kill_at += 60.0
            victim = random.randrange(3)
            for orphan in [one for one, lease in leases.items() if lease[2] == victim]:
                heapq.heappush(ends, (now + TTL, orphan))
        number += 1
        tokens = random.randrange(100, 2000)
        offer = strategy.offer(pool, Wanted(tokens=tokens), Known(), number, random)
        id = picking.pick(offer, live, pending, random.random())
        assert id is not None
        leases[number] = (id, tokens, random.randrange(3))
        live[id] += 1
        pending[id] += tokens
        served[id] += 1
        heapq.heappush(ends, (now + random.expovariate(1 / LENGTH), number))
    assert min(live.values()) >= 0
    assert min(pending.values()) >= 0
    counts = [served[node.id] for node in pool.nodes]
    assert (max(counts) - min(counts)) / (sum(counts) / count) < 0.1
    loads = [live[node.id] + pending[node.id] / picking.SCALE for node in pool.nodes]
    assert max(loads) - min(loads) < 6
    for one, (id, tokens, _) in leases.items():
        assert one
        live[id] -= 1
        pending[id] -= tokens
    assert set(live.values()) == set(pending.values()) == {0}
