"""From what is desired and what is there to what is to be done. Pure: time is an argument.

intended ─▶ launching ─▶ warming ─▶ ready ─▶ draining ─▶ ending ─▶ gone
    └───────────┴───────────┴─────────┴──────────────────▶ ending ─▶ failed (a reason and a kind of failure are there)

Only decisions are made here; `fleet` carries launches from one state to the next.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal, TypeAlias
from uuid import UUID

import msgspec

from provisioner.choosing import Ended, blocked_until, failures_in_row, paused_until
from provisioner.launcher import Candidate, Failure

State: TypeAlias = Literal["intended", "launching", "warming", "ready", "draining", "ending", "gone", "failed"]
RISING: tuple[State, ...] = ("intended", "launching", "warming", "ready")
SURGE = 1
"""Machines over what is wanted while old ones are replaced."""
AT_ONCE = 8
"""Machines that one look starts for a deployment; the next look is soon."""
GIVE_UP_ROLLOUT = 3
"""Failures in a row after which a new generation is no longer tried while a good one is known."""
SETTLED = 60.0
"""Seconds; a machine that is lost earlier was never good."""


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long, in seconds, a state may last."""

    launching: float = 1800
    warming: float = 1800
    draining: float = 900
    unhealthy: float = 120
    """Of a ready node, as the scheduler sees it."""


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    wanted: int
    generation: int
    good_generation: int = 0
    on_demand: int = 0
    max_hourly_microusd: int | None = None
    spent: bool = False
    """The month's cap is reached."""
    offers: tuple[Candidate, ...] | None = ()
    """In order of preference; None: not known now."""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    deployment_id: UUID
    slot: int
    epoch: int
    generation: int
    cluster: str
    launcher: str
    state: State
    candidate: Candidate
    state_at: datetime
    ready_at: datetime | None = None
    request_id: str | None = None
    endpoint: str | None = None
    node_id: str | None = None
    reason: str = ""
    failure: Failure | None = None


class Observation(msgspec.Struct, frozen=True):
    """What a launcher has, as of a time."""

    at: datetime
    machines: Mapping[str, bool]


class Start(msgspec.Struct, frozen=True):
    deployment_id: UUID
    slot: int
    generation: int
    candidate: Candidate


class Drain(msgspec.Struct, frozen=True):
    launch: Launch
    reason: str


class End(msgspec.Struct, frozen=True):
    launch: Launch
    reason: str
    failure: Failure | None = None


class Wait(msgspec.Struct, frozen=True):
    """Machines are missing and none is started; operators read why."""

    deployment_id: UUID
    reason: str


Decision: TypeAlias = Start | Drain | End | Wait


def diff(
    desired: Sequence[Desired],
    launches: Sequence[Launch],
    observed: Mapping[str, Observation],
    ended: Sequence[Ended],
    unhealthy_since: Mapping[UUID, datetime],
    now: datetime,
    patience: Patience,
) -> list[Decision]:
    """`launches` are those that have not ended; `observed` is by launcher, without those that could not be asked."""
    decisions: list[Decision] = []
    lost: set[UUID] = set()
    for launch in launches:
        if end := _overdue(launch, observed.get(launch.launcher), unhealthy_since.get(launch.id), now, patience):
            decisions.append(end)
            lost.add(launch.id)
    for one in desired:
        own = [launch for launch in launches if launch.deployment_id == one.id and launch.id not in lost]
        decisions += _of_deployment(one, own, ended, now)
    known = {one.id for one in desired}
    decisions += [
        End(launch, "its deployment is gone")
        for launch in launches
        if launch.deployment_id not in known and launch.id not in lost and launch.state != "ending"
    ]
    return decisions


def target(desired: Desired, ended: Sequence[Ended]) -> int:
    """The generation to run: the newest, unless it keeps failing and an older one is known to work."""
    failed = failures_in_row(desired.id, desired.generation, ended) >= GIVE_UP_ROLLOUT
    return desired.good_generation if failed and desired.good_generation else desired.generation


def _of_deployment(one: Desired, own: Sequence[Launch], ended: Sequence[Ended], now: datetime) -> list[Decision]:
    generation = target(one, ended)
    wanted = 0 if one.spent else one.wanted
    rising = [launch for launch in own if launch.state in RISING]
    fresh = [launch for launch in rising if launch.generation == generation]
    old = [launch for launch in rising if launch.generation != generation]
    ready = sum(launch.state == "ready" for launch in fresh)
    why = "the month's cost cap is reached" if one.spent else "fewer replicas are wanted"
    decisions: list[Decision] = [_less(launch, why) for launch in _first_to_go(fresh)[: max(len(fresh) - wanted, 0)]]
    replaced = max(len(old) + min(ready, wanted) - wanted, 0)
    decisions += [_less(launch, "replaced by a new generation") for launch in _first_to_go(old)[:replaced]]
    missing = wanted - len(fresh)
    if old:
        missing = min(missing, wanted + SURGE - len(fresh) - len(old))
    if missing > 0:
        decisions += _starts(one, own, fresh, generation, missing, ended, now)
    return decisions


def _starts(
    one: Desired,
    own: Sequence[Launch],
    fresh: Sequence[Launch],
    generation: int,
    missing: int,
    ended: Sequence[Ended],
    now: datetime,
) -> list[Decision]:
    if one.offers is None:
        return [Wait(one.id, "the launcher does not say what it has")]
    paused = paused_until(one.id, generation, ended)
    if paused and paused > now:
        return [Wait(one.id, f"its machines fail to come up; tried again at {paused:%H:%M:%S} UTC")]
    decisions: list[Decision] = []
    taken = {launch.slot for launch in own}
    hourly = sum(launch.candidate.hourly_microusd for launch in own)
    steady = sum(not launch.candidate.spot for launch in fresh)
    for _ in range(min(missing, AT_ONCE)):
        found, why = _candidate(one, steady < one.on_demand, hourly, ended, now)
        if found is None:
            return [*decisions, Wait(one.id, why)]
        slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        decisions.append(Start(one.id, slot, generation, found))
        taken.add(slot)
        hourly += found.hourly_microusd
        steady += not found.spot
    return decisions


def _candidate(
    one: Desired, steady: bool, hourly: int, ended: Sequence[Ended], now: datetime
) -> tuple[Candidate | None, str]:
    assert one.offers is not None
    offers = [offer for offer in one.offers if not (steady and offer.spot)]
    if not offers:
        return None, "no cloud that is enabled has such a machine"
    cap = one.max_hourly_microusd
    payable = [offer for offer in offers if cap is None or hourly + offer.hourly_microusd <= cap]
    if not payable:
        return None, "one more machine would cost more an hour than max_hourly_usd allows"
    waits = {}
    for offer in payable:
        until = blocked_until(offer, ended)
        if until is None or until <= now:
            return offer, ""
        waits[offer] = until
    return None, f"no capacity anywhere; tried again at {min(waits.values()):%H:%M:%S} UTC"


def _overdue(
    launch: Launch, seen: Observation | None, unhealthy: datetime | None, now: datetime, patience: Patience
) -> End | None:
    age = (now - launch.state_at).total_seconds()
    match launch.state:
        case "intended" | "launching" if age > patience.launching:
            return End(launch, f"it was not up within {patience.launching:.0f} s", "broken")
        case "warming" if age > patience.warming:
            return End(launch, f"its engine did not answer within {patience.warming:.0f} s", "broken")
        case "draining" if age > patience.draining:
            return End(launch, launch.reason)
        case "ready" if unhealthy and (now - unhealthy).total_seconds() > patience.unhealthy:
            return End(launch, "its engine does not answer any more", _too_early(launch, now))
    there = launch.state in ("warming", "ready", "draining") and seen is not None and seen.at > launch.state_at
    if there and seen and not seen.machines.get(launch.cluster, False):
        return End(launch, "its machine is gone", _too_early(launch, now))
    return None


def _too_early(launch: Launch, now: datetime) -> Failure | None:
    young = launch.ready_at is None or now - launch.ready_at < timedelta(seconds=SETTLED)
    return "broken" if young and launch.state != "draining" else None


def _less(launch: Launch, reason: str) -> Decision:
    return Drain(launch, reason) if launch.state == "ready" else End(launch, reason)


def _first_to_go(launches: Sequence[Launch]) -> list[Launch]:
    """What serves nobody yet, then what is dear, then what came last."""
    return sorted(
        launches, key=lambda one: (RISING.index(one.state), -one.candidate.hourly_microusd, -one.slot, -one.epoch)
    )
