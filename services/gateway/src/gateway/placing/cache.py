"""Scorer: an engine whose KV cache is nearly full begins to preempt; what it throws out is computed again."""

from common.routing import Load

FREE = 0.8
"""Share of the cache up to which nothing speaks against a node."""
FULL = 8.0
"""Requests, when all of it is in use."""


def bias(load: Load) -> float:
    over = max(0.0, min(load.cache, 1.0) - FREE) / (1 - FREE)
    return FULL * over * over
