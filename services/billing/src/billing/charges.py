"""Priced records, and what a change of them adds to the sums. Pure."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec

from common.events import UsageRecorded
from common.ids import first_id

_HOUR = timedelta(hours=1)


class Charge(msgspec.Struct, frozen=True):
    """A record in the ledger, or on its way there."""

    record: UsageRecorded
    price_id: int
    cost: int
    """Pico-dollars."""


class Change(msgspec.Struct, frozen=True):
    """One id's charge before and after; `old` is None for a new one."""

    old: Charge | None
    new: Charge


class Slot(NamedTuple):
    """A row of `usage_hourly`. A tuple, so that all replicas lock rows in the same order."""

    tenant_id: UUID
    hour: datetime
    environment_id: UUID
    api_key_id: UUID
    model: str
    region: str


class Sums(NamedTuple):
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost: int


Account = tuple[UUID, datetime]
"""Tenant and hour: what one outbox row is about."""


def hourly(changes: Iterable[Change]) -> list[tuple[Slot, Sums]]:
    """What the changes add to each hour's sums, in order of the slots; what adds nothing is left out."""
    sums: dict[Slot, list[int]] = {}
    for change in changes:
        if change.old is not None:
            _add(sums, change.old, -1)
        _add(sums, change.new, 1)
    return [(slot, Sums(*sums[slot])) for slot in sorted(sums) if any(sums[slot])]


def accounts(deltas: Iterable[tuple[Slot, Sums]]) -> list[tuple[Account, int, int]]:
    """`(account, requests, cost)` of the same changes, in order; what adds nothing is left out."""
    found: dict[Account, tuple[int, int]] = {}
    for slot, sums in deltas:
        requests, cost = found.get((slot.tenant_id, slot.hour), (0, 0))
        found[slot.tenant_id, slot.hour] = (requests + sums.requests, cost + sums.cost)
    return [(account, *found[account]) for account in sorted(found) if any(found[account])]


def month_of(id: UUID) -> datetime:
    """The first moment of the month in which a UUIDv7 was made, in UTC."""
    at = datetime.fromtimestamp((id.int >> 80) / 1000, UTC)
    return datetime(at.year, at.month, 1, tzinfo=UTC)


def month_from(month: datetime, distance: int) -> datetime:
    """The month that many months later."""
    number = month.year * 12 + month.month - 1 + distance
    return datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)


def bounds(month: datetime) -> tuple[UUID, UUID]:
    """The ids made in a month: from the first, up to but without the second."""
    return first_id(month), first_id(month_from(month, 1))


def _add(sums: dict[Slot, list[int]], charge: Charge, sign: int) -> None:
    record = charge.record
    started = record.started_at.astimezone(UTC)
    slot = Slot(
        record.tenant_id,
        started.replace(minute=0, second=0, microsecond=0),
        record.environment_id,
        record.api_key_id,
        record.model,
        record.region,
    )
    sum = sums.setdefault(slot, [0, 0, 0, 0, 0])
    sum[0] += sign
    sum[1] += sign * record.input_tokens
    sum[2] += sign * record.cached_tokens
    sum[3] += sign * record.output_tokens
    sum[4] += sign * charge.cost
