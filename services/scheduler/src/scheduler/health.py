"""When a node is fit for requests: what to look at, and what follows from what was seen. Pure: time is an argument.

warming ──healthy, models, a token──▶ ready ──2 failures──▶ unhealthy ──healthy──▶ ready
draining stays draining, whatever its health.
"""

from datetime import datetime

import msgspec

from common.routing import Model, Node, State

FAILURES = 2
"""One lost packet is no outage."""
MODELS_EVERY = 10.0
"""Seconds between two readings of a ready node's models."""


class Vital(msgspec.Struct, frozen=True, kw_only=True):
    """A node and what is remembered of its health."""

    node: Node
    failures: int = 0
    """Failed looks in a row."""
    models_at: float | None = None
    """Monotonic seconds when its models were last read."""
    healthy_at: datetime | None = None
    reason: str = ""
    """Why it is not ready; empty when nothing is wrong."""


class Wanted(msgspec.Struct, frozen=True):
    models: bool
    token: bool


class Seen(msgspec.Struct, frozen=True):
    """One look at a node."""

    healthy: bool
    """Everything that was asked for was answered, the token aside."""
    models: tuple[Model, ...] | None = None
    token: bool = False
    reason: str = ""


def wanted(vital: Vital, now: float) -> Wanted:
    stale = vital.models_at is None or now - vital.models_at >= MODELS_EVERY
    return Wanted(
        models=stale or vital.node.state in ("warming", "unhealthy") or not vital.node.models,
        token=vital.node.state == "warming",
    )


def judge(vital: Vital, seen: Seen, now: float, time: datetime) -> Vital:
    """What is known after a look. `now` is monotonic, `time` the wall clock."""
    models = vital.node.models if seen.models is None else seen.models
    failures = 0 if seen.healthy else vital.failures + 1
    state = _next(vital.node.state, seen, failures, serves=bool(models))
    return msgspec.structs.replace(
        vital,
        node=msgspec.structs.replace(vital.node, state=state, models=models),
        failures=failures,
        models_at=vital.models_at if seen.models is None else now,
        healthy_at=time if seen.healthy else vital.healthy_at,
        reason=seen.reason,
    )


def _next(state: State, seen: Seen, failures: int, *, serves: bool) -> State:
    if state == "warming" and seen.healthy and seen.token and serves:
        return "ready"
    if state == "ready" and failures >= FAILURES:
        return "unhealthy"
    if state == "unhealthy" and seen.healthy and serves:
        return "ready"
    return state
