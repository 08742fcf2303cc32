"""How many replicas a model should have, and why. Pure: signals, the time and a memory in, a count and a memory out.

Up: at once for what is there, counting the trend ahead, and not again before a pause, since a launch takes minutes and
its effect must be seen first. Down: one at a time, only for what even the peak of a whole window did not need, by a
lower mark than the one for up, so that a load between the two marks moves nothing. To the least, zero
it may be: after nothing was asked for a whole idle timeout. From zero: at once, for the first who waits.
"""

import math
from collections.abc import Sequence

import msgspec

from common.deployments import Deployment


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Times are seconds."""

    high: float = 0.75
    """The share of its slots that a replica is meant to have in use."""
    low: float = 0.5
    """What is gone must leave the others at no more than this."""
    concurrency: int = 32
    """Requests at once for a replica that neither its deployment nor its node tells of."""
    up_pause: float = 15.0
    down_pause: float = 120.0
    window: float = 120.0
    """Down is decided by the peak of this long."""
    ahead: float = 60.0
    """How far ahead a rising demand is followed: about a launch."""
    smooth: float = 60.0
    """Over which the trend is taken: a sudden step looks like one for as long."""
    patience: float = 5.0
    """A longer wait, while all that was asked for is there, is worth one more replica."""


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """A model's deployments together."""

    least: int
    most: int
    idle: float
    """Seconds without a request until there may be no replica."""
    replicas: int
    """As the provisioner has it."""
    ready: int
    concurrency: int
    """Requests at once that a replica is meant for; 0: nobody says."""


class Signals(msgspec.Struct, frozen=True, kw_only=True):
    waiting: int = 0
    waited: float = 0.0
    """Seconds, of who has waited longest."""
    live: int = 0
    slots: int = 0
    """Of a ready node, by its own word; 0: it says nothing."""
    others: int = 0
    """Ready nodes that no deployment has made."""


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    replicas: int
    """As asked for last."""
    seen: int
    """`Scope.replicas`, the last time."""
    moved_at: float
    """When that was."""
    since: float
    """How far back this memory goes."""
    busy_at: float
    peaks: tuple[tuple[float, int], ...] = ()
    """(Time, demand), the demand falling: the first is the peak of the window."""
    level: float = 0.0
    slope: float = 0.0
    """Of the demand, per second, smoothed."""
    at: float


class Decision(msgspec.Struct, frozen=True):
    replicas: int
    reason: str
    """Empty where nothing changes."""
    memory: Memory


def scope(deployments: Sequence[Deployment]) -> Scope:
    """Of one model."""
    told = [one.target_concurrency for one in deployments if one.target_concurrency]
    return Scope(
        least=sum(one.min_replicas for one in deployments),
        most=sum(one.max_replicas for one in deployments),
        idle=max(one.idle_timeout_s for one in deployments),
        replicas=sum(one.replicas for one in deployments),
        ready=sum(one.ready for one in deployments),
        concurrency=min(told, default=0),
    )


def fresh(scope: Scope, now: float, asked: int | None = None, asked_at: float = -math.inf) -> Memory:
    """A memory that begins now; `asked`: what a predecessor asked for last."""
    replicas = scope.replicas if asked is None else asked
    return Memory(replicas=replicas, seen=scope.replicas, moved_at=asked_at, since=now, busy_at=now, at=now)


def desired(scope: Scope, signals: Signals, now: float, memory: Memory, policy: Policy) -> Decision:
    demand = signals.live + signals.waiting
    memory = _remembered(memory, scope, demand, now, policy)
    replicas, reason = _wanted(scope, signals, demand, now, memory, policy)
    bounded = min(max(replicas, scope.least), scope.most)
    if bounded != replicas:
        reason = (
            f"at least {scope.least}" if bounded > replicas else f"{reason or 'as before'}, but at most {scope.most}"
        )
    if bounded == memory.replicas:
        return Decision(bounded, "", memory)
    return Decision(bounded, reason, msgspec.structs.replace(memory, replicas=bounded, moved_at=now))


def _wanted(scope: Scope, signals: Signals, demand: int, now: float, memory: Memory, policy: Policy) -> tuple[int, str]:
    """Not yet bounded."""
    slots = scope.concurrency or signals.slots or policy.concurrency
    current = memory.replicas
    if not demand:
        if current > scope.least and now - memory.busy_at >= scope.idle:
            return scope.least, f"nothing was asked for {scope.idle:g} s"
    elif not current:
        # other nodes may carry it all
        if signals.waiting or _need(demand, signals.others, slots, policy.high):
            replicas = max(_need(demand, signals.others, slots, policy.high), 1)
            return replicas, f"{signals.waiting} wait, {signals.live} run, and there is no replica"
        return 0, ""
    else:
        ahead = min(demand + max(memory.slope, 0) * policy.ahead, 2 * demand)
        need = _need(ahead, signals.others, slots, policy.high)
        rested = now - memory.moved_at >= policy.up_pause
        if need > current and rested:
            return (
                need,
                f"{signals.live} run and {signals.waiting} wait, {memory.slope:+.1f} a second: {slots} a replica",
            )
        if signals.waiting and signals.waited >= policy.patience and scope.ready >= current and rested:
            return current + 1, f"{signals.waiting} wait, the first for {signals.waited:.0f} s"
    peak = memory.peaks[0][1] if memory.peaks else 0
    rested = min(now - memory.moved_at, now - memory.since) >= max(policy.down_pause, policy.window)
    if current > 1 and rested and _need(peak, signals.others, slots, policy.low) < current:
        return current - 1, f"no more than {peak} ran or waited within {policy.window:g} s: {slots} a replica"
    return current, ""


def _need(demand: float, others: int, slots: int, share: float) -> int:
    return max(math.ceil(round(demand / (slots * share), 6)) - others, 0)


def _remembered(memory: Memory, scope: Scope, demand: int, now: float, policy: Policy) -> Memory:
    if scope.replicas not in (memory.seen, memory.replicas):  # an operator has set it by hand
        memory = msgspec.structs.replace(memory, replicas=scope.replicas, moved_at=now)
    passed = max(now - memory.at, 0.0)
    weight = 1 - math.exp(-passed / policy.smooth)
    level = memory.level + weight * (demand - memory.level)
    slope = memory.slope
    if passed:
        slope += weight * ((level - memory.level) / passed - slope)
    # those that a later demand exceeds can be the peak no more; a second's resolution bounds their number
    peaks = [one for one in memory.peaks if one[0] > now - policy.window and one[1] > demand]
    peaks.append((float(math.ceil(now)), demand))
    return msgspec.structs.replace(
        memory,
        seen=scope.replicas,
        busy_at=now if demand else memory.busy_at,
        peaks=tuple(peaks),
        level=level,
        slope=slope,
        at=now,
    )
