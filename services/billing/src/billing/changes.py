"""What a batch does to the ledger, summed for the hourly rollup and for the outbox. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from functools import reduce
from typing import TypeAlias
from uuid import UUID

import msgspec

from common.events import UsageRecorded


class Entry(msgspec.Struct, frozen=True):
    """A line of the ledger."""

    event: UsageRecorded
    price_id: UUID
    cost: int
    """Pico-dollars."""


class Change(msgspec.Struct, frozen=True):
    """`new` takes the place of `old`, or is the first of its id."""

    old: Entry | None
    new: Entry


Key: TypeAlias = tuple[datetime, UUID, UUID, UUID, str, str]
"""Hour in which the request began, tenant, environment, key, model, region."""
MonthKey: TypeAlias = tuple[UUID, datetime, str, str, UUID]
"""Tenant, month in which the request began, model, region, price."""
Number: TypeAlias = tuple[datetime, int, int, int, str, str]
"""A Key with its ids as numbers, which compare and hash many times faster."""
Sum: TypeAlias = tuple[UsageRecorded, list[int]]
"""The first record of a key, and the fields of its Sums."""


class Sums(msgspec.Struct, frozen=True):
    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0
    """Pico-dollars."""

    def plus(self, other: "Sums") -> "Sums":
        return Sums(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.cost + other.cost,
        )


def columns(sums: Sequence[Sums]) -> tuple[list[int], list[int], list[int], list[int], list[Decimal]]:
    """As both rollups store them: requests, input, cached and output tokens, pico-dollars."""
    return (
        [s.requests for s in sums],
        [s.input_tokens for s in sums],
        [s.cached_tokens for s in sums],
        [s.output_tokens for s in sums],
        [Decimal(s.cost) for s in sums],
    )


def total(sums: Iterable[Sums]) -> Sums:
    return reduce(Sums.plus, sums, Sums())


def hourly(changes: Iterable[Change]) -> dict[Key, Sums]:
    """Differences by key, in order of key; those that cancel out are left out."""
    found: dict[Number, Sum] = {}  # lists that are added to: this runs for every record
    for change in changes:
        _add(found, change.new, 1)
        if change.old is not None:
            _add(found, change.old, -1)
    in_order = (found[number] for number in sorted(found))
    return {_key_of(event): Sums(*sums) for event, sums in in_order if any(sums)}


def _add(found: dict[Number, Sum], entry: Entry, sign: int) -> None:
    event = entry.event
    number = _number_of(event)
    if number not in found:
        found[number] = (event, [0, 0, 0, 0, 0])
    _, sums = found[number]
    sums[0] += sign
    sums[1] += sign * event.input_tokens
    sums[2] += sign * event.cached_tokens
    sums[3] += sign * event.output_tokens
    sums[4] += sign * entry.cost


def monthly(changes: Iterable[Change]) -> dict[MonthKey, Sums]:
    """Differences by key, in order of key; those that cancel out are left out."""
    found: dict[tuple[int, datetime, str, str, int], tuple[Entry, list[int]]] = {}
    for change in changes:
        for entry, sign in ((change.new, 1), (change.old, -1)):
            if entry is None:
                continue
            event = entry.event
            number = (event.tenant_id.int, _month_of(event), event.model, event.region, entry.price_id.int)
            _, sums = found.setdefault(number, (entry, [0, 0, 0, 0, 0]))
            sums[0] += sign
            sums[1] += sign * event.input_tokens
            sums[2] += sign * event.cached_tokens
            sums[3] += sign * event.output_tokens
            sums[4] += sign * entry.cost
    in_order = ((found[number][0], found[number][1]) for number in sorted(found))
    return {
        (e.event.tenant_id, _month_of(e.event), e.event.model, e.event.region, e.price_id): Sums(*sums)
        for e, sums in in_order
        if any(sums)
    }


def by_tenant(differences: dict[Key, Sums]) -> dict[tuple[UUID, datetime], tuple[int, int]]:
    """Pico-dollars and requests of each tenant and hour; those that cancel out are left out."""
    found: dict[tuple[UUID, datetime], tuple[int, int]] = {}
    for (hour, tenant_id, *_), sums in differences.items():
        cost, requests = found.get((tenant_id, hour), (0, 0))
        found[tenant_id, hour] = (cost + sums.cost, requests + sums.requests)
    return {key: value for key, value in sorted(found.items()) if value != (0, 0)}


def _number_of(event: UsageRecorded) -> Number:
    ids = event.tenant_id.int, event.environment_id.int, event.api_key_id.int
    return (_hour_of(event), *ids, event.model, event.region)


def _key_of(event: UsageRecorded) -> Key:
    return (_hour_of(event), event.tenant_id, event.environment_id, event.api_key_id, event.model, event.region)


def _hour_of(event: UsageRecorded) -> datetime:
    return event.started_at.replace(minute=0, second=0, microsecond=0)


def _month_of(event: UsageRecorded) -> datetime:
    return event.started_at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
