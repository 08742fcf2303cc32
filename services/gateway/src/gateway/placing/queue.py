"""Scorer: a request that waits in the engine's own queue says that the node is full, whoever sent it."""

from common.routing import Load


def bias(load: Load) -> float:
    return float(load.waiting)
