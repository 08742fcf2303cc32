"""Scorer: the nodes that are likely to have a request's beginning in their cache."""

from common.routing import Strategy
from gateway.placing.prefix import beginning
from gateway.placing.wanted import Wanted

PREFERRED = 2
"""The key's own node, and who has it when that one is too busy."""
BOUNDS: dict[Strategy, float] = {"prefix_affinity": 1.25, "least_loaded": 1.5}
"""Times the average load that the preferred node may have."""


def key(wanted: Wanted, strategy: Strategy) -> bytes | None:
    """What the request is hashed by; None: any node is as good. Tenants share no cache, hence no key.

    A client that names its session wants it kept together whatever the strategy; the rest is for `prefix_affinity`.
    """
    if strategy not in BOUNDS:
        return None
    if wanted.session:
        return b"session\0" + wanted.tenant.encode() + b"\0" + wanted.session
    if strategy != "prefix_affinity":
        return None
    if wanted.user:
        return b"user\0" + wanted.tenant.encode() + b"\0" + wanted.user
    if memoryview(wanted.prompt):
        return b"prompt\0" + wanted.tenant.encode() + b"\0" + beginning(wanted.prompt)
    return None
