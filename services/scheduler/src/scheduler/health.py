"""When a node is fit for requests: what to look at, and what follows from what was seen. Pure: time is an argument.

warming ──healthy, models, a token──▶ ready ──2 failed looks, or its requests fail──▶ unhealthy (the breaker is open)
unhealthy ──the one probe finds it healthy, with models, and has a token──▶ ready
draining stays draining, whatever its health.

Health alone proves little: an engine that shuts down answers 200 on `/health` while it refuses every request. So
requests that fail count as much as looks, and only a token brings a node back. The last node of a model is not taken
away for failed requests before it has failed to make a token, too: no answer at all would be worse than a bad one.
"""

from datetime import datetime

import msgspec

from common import breaker
from common.breaker import Breaker, Policy, Window
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
    breaker: Breaker = Breaker()
    """Its times are seconds of the wall clock, which replicas share."""
    window: Window = Window()
    """Results of the requests of this epoch."""
    doubt: str = ""
    """Why it must prove itself by a token though it is ready."""


class Wanted(msgspec.Struct, frozen=True):
    models: bool
    token: bool


class Spent(msgspec.Struct, frozen=True):
    """What one attempt to have a token made has cost."""

    model: str
    input_tokens: int = 0
    output_tokens: int = 0
    answered: bool = False
    """False: the tokens are not known."""


class Seen(msgspec.Struct, frozen=True):
    """One look at a node."""

    healthy: bool
    """Everything that was asked for was answered, the token aside."""
    models: tuple[Model, ...] | None = None
    token: bool = False
    reason: str = ""
    spent: tuple[Spent, ...] = ()


def wanted(vital: Vital, now: float) -> Wanted:
    stale = vital.models_at is None or now - vital.models_at >= MODELS_EVERY
    state = vital.node.state
    proving = state in ("warming", "unhealthy") or (state == "ready" and bool(vital.doubt))
    return Wanted(models=stale or proving or not vital.node.models, token=proving)


def judge(vital: Vital, seen: Seen, now: float, time: datetime, random: float, policy: Policy) -> Vital:
    """What is known after a look. `now` is monotonic, `time` the wall clock; `random` in [0, 1)."""
    models = vital.node.models if seen.models is None else seen.models
    vital = msgspec.structs.replace(
        vital,
        node=msgspec.structs.replace(vital.node, models=models),
        failures=0 if seen.healthy else vital.failures + 1,
        models_at=vital.models_at if seen.models is None else now,
        healthy_at=time if seen.healthy else vital.healthy_at,
        reason=seen.reason,
    )
    fit = seen.healthy and seen.token and bool(models)
    clock = time.timestamp()
    match vital.node.state:
        case "warming" if fit:
            return _moved(vital, "ready", vital.breaker)
        case "ready" if vital.doubt and fit:
            return msgspec.structs.replace(vital, doubt="", window=Window())
        case "ready" if vital.failures >= FAILURES or (vital.doubt and not fit):
            reason = "; ".join(part for part in (vital.doubt, seen.reason) if part)
            after = breaker.opened(vital.breaker, clock, random, policy, reason)
            return _moved(msgspec.structs.replace(vital, reason=reason), "unhealthy", after)
        case "unhealthy":
            after = breaker.probed(
                vital.breaker, vital.breaker.epoch, clock, random, policy, well=fit, reason=seen.reason
            )
            return _moved(vital, "ready" if after.state == "closed" else "unhealthy", after)
    return vital


def heard(
    vital: Vital, epoch: int, good: int, bad: int, time: datetime, random: float, policy: Policy, *, last: bool
) -> Vital:
    """What is known after results of requests that were sent in `epoch`. `last`: no other node would be left."""
    if vital.node.state != "ready" or epoch != vital.breaker.epoch:
        return vital
    clock = time.timestamp()
    window = breaker.added(vital.window, good, bad, clock, policy)
    vital = msgspec.structs.replace(vital, window=window)
    reason = breaker.trouble(window, clock, policy)
    if not reason:
        return vital
    if last:
        return msgspec.structs.replace(vital, doubt=reason)
    after = breaker.opened(vital.breaker, clock, random, policy, reason)
    return _moved(msgspec.structs.replace(vital, reason=reason), "unhealthy", after)


def adopted(vital: Vital, stored: Breaker) -> Vital:
    """As another replica, or this one's predecessor, has left its breaker."""
    state = vital.node.state
    if state in ("ready", "unhealthy"):
        state = "ready" if stored.state == "closed" else "unhealthy"
    reason = stored.reason if state == "unhealthy" else vital.reason
    return _moved(msgspec.structs.replace(vital, reason=reason), state, stored)


def _moved(vital: Vital, state: State, after: Breaker) -> Vital:
    return msgspec.structs.replace(
        vital,
        node=msgspec.structs.replace(vital.node, state=state, epoch=after.epoch),
        breaker=after,
        window=Window(),
        doubt="",
        failures=0 if state == "ready" else vital.failures,
    )
