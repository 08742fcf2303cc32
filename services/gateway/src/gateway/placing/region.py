"""Scorer: a node in another region than the request's environment serves only what its own region has no room for."""

from common.routing import Node
from gateway.placing.wanted import Wanted

ELSEWHERE = 1e6
"""Requests: more than any node has, so that each node at home comes first."""


def elsewhere(node: Node, wanted: Wanted) -> bool:
    return bool(wanted.region) and node.region != wanted.region


def bias(node: Node, wanted: Wanted) -> float:
    return ELSEWHERE if elsewhere(node, wanted) else 0.0
