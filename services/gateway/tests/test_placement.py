"""Placement while Redis is away: by this gateway's own counts, with the same picks."""

from typing import Any

import pytest

from common.breaker import Policy
from common.errors import NoCapacity, Overloaded
from common.redis import Redis
from common.routing import Model, Node, Snapshot
from gateway.ejection import Ejection
from gateway.leases import Leases
from gateway.nodes import Nodes
from gateway.placement import Placement
from gateway.placing.wanted import Wanted

ANYBODY = Wanted()


def a_placement(*nodes: Node) -> tuple[Placement, Ejection]:
    gone = Redis("redis://127.0.0.1:1", "test")
    gone.close()
    known = Nodes()
    known.replace(Snapshot(1, nodes))
    ejection = Ejection(Policy(in_a_row=3), lambda: 1000.0, lambda: 0.5)
    return Placement(known, ejection, Leases(gone, gone, "none"), 5000, 60), ejection


def a_node(id: str, **fields: Any) -> Node:
    return Node(id=id, endpoint=f"http://{id}", models=(Model("m"),), **{"state": "ready", **fields})


async def take(placement: Placement, wanted: Wanted = ANYBODY) -> str:
    placed = await placement.place("r", "m", b"", wanted)
    assert not placed.leased
    placement.live[placed.node.id] += 1
    return placed.node.id


async def test_own_counts_fill_equal_nodes_equally_and_full_ones_no_more() -> None:
    placement, _ = a_placement(a_node("a", max_concurrency=3), a_node("b"), a_node("c", state="draining"))
    taken = [await take(placement) for _ in range(10)]
    assert taken.count("a") == 3
    assert taken.count("b") == 7
    assert abs(taken[:6].count("a") - 3) == 0


async def test_all_full_is_overloaded_and_none_up_is_no_capacity() -> None:
    placement, _ = a_placement(a_node("a", max_concurrency=1))
    await take(placement)
    with pytest.raises(Overloaded):
        await take(placement)
    with pytest.raises(NoCapacity):
        await take(placement, Wanted(failed=frozenset({"a"})))


async def test_what_is_left_out_here_is_tried_when_nothing_else_is_there() -> None:
    nodes = a_node("a"), a_node("b")
    placement, ejection = a_placement(*nodes)
    for number in range(3):
        ejection.saw(nodes[0], str(number), False)
    assert {await take(placement) for _ in range(8)} == {"b"}
    for number in range(3):
        ejection.saw(nodes[1], str(number), False)
    assert {await take(placement) for _ in range(20)} == {"a", "b"}
