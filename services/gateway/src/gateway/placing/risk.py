"""Scorer: a node that may be taken away soon gets a request only where others are busier."""

from common.routing import Node

TAKEN = 4.0
"""Requests, for a node that is sure to go."""


def bias(node: Node) -> float:
    return TAKEN * node.risk
