"""What a tenant's plan grants it, hour by hour. Pure."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from common.plans import DEFAULT, Plan

HOUR = timedelta(hours=1)
EVER = datetime.min.replace(tzinfo=UTC)


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan grants to all who are on it, from `effective_from` until its next version. Pico-dollars."""

    id: UUID
    plan: Plan
    free_monthly: int
    """Usage of a calendar month (UTC) that costs nothing."""
    unit_hour: int
    """Price of one reserved token a second, for an hour."""
    effective_from: datetime
    created_at: datetime
    created_by: str


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's plan from `effective_from` until the next one; of two of one moment the later id holds."""

    id: UUID
    tenant_id: UUID
    plan: Plan
    units: int
    """Reserved tokens a second."""
    effective_from: datetime
    created_at: datetime
    created_by: str


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """In force from `effective_from`, a whole hour, until the next ones."""

    effective_from: datetime
    plan: Plan = DEFAULT
    free_monthly: int = 0
    units: int = 0
    unit_hour: int = 0


def timeline(assignments: Iterable[Assignment], versions: Iterable[Version]) -> list[Terms]:
    """One tenant's terms, oldest first; the first ones have always been in force."""
    assigned = sorted(assignments, key=lambda a: (a.effective_from, a.id))
    catalogue = sorted(versions, key=lambda v: (v.effective_from, v.id))
    moments = {EVER, *(a.effective_from for a in assigned), *(v.effective_from for v in catalogue)}
    found: list[Terms] = []
    for at in sorted(moments):
        terms = _at(at, assigned, catalogue)
        if not found or msgspec.structs.replace(terms, effective_from=found[-1].effective_from) != found[-1]:
            found.append(terms)
    return found


def in_force(terms: Sequence[Terms], at: datetime) -> Terms:
    """`terms` in order of time, the first of them from ever."""
    return next(t for t in reversed(terms) if t.effective_from <= at)


def hour_of(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def hour_after(at: datetime) -> datetime:
    """The whole hour at or after this moment."""
    return hour_of(at) if hour_of(at) == at else hour_of(at) + HOUR


def _at(at: datetime, assigned: Sequence[Assignment], catalogue: Sequence[Version]) -> Terms:
    own = next((a for a in reversed(assigned) if a.effective_from <= at), None)
    plan = own.plan if own else DEFAULT
    version = next((v for v in reversed(catalogue) if v.plan == plan and v.effective_from <= at), None)
    return Terms(
        effective_from=at,
        plan=plan,
        free_monthly=version.free_monthly if version else 0,
        units=own.units if own else 0,
        unit_hour=version.unit_hour if version else 0,
    )
