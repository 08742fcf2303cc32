"""What a batch does to the ledger, summed for the hourly rollup and for the outbox. Pure."""

from collections.abc import Iterable
from datetime import datetime
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
Number: TypeAlias = tuple[datetime, int, int, int, str, str]
"""A Key with its ids as numbers, which compare and hash many times faster."""


class Sums(msgspec.Struct, frozen=True):
    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0
    """Pico-dollars."""

    def plus(self, other: "Sums", sign: int = 1) -> "Sums":
        return Sums(
            self.requests + sign * other.requests,
            self.input_tokens + sign * other.input_tokens,
            self.cached_tokens + sign * other.cached_tokens,
            self.output_tokens + sign * other.output_tokens,
            self.cost + sign * other.cost,
        )


NOTHING = Sums()


def total(sums: Iterable[Sums]) -> Sums:
    return reduce(Sums.plus, sums, NOTHING)


def sums_of(entry: Entry) -> Sums:
    event = entry.event
    return Sums(1, event.input_tokens, event.cached_tokens, event.output_tokens, entry.cost)


def hourly(changes: Iterable[Change]) -> dict[Key, Sums]:
    """Differences by key, in order of key; those that cancel out are left out."""
    found: dict[Number, Sums] = {}
    for change in changes:
        for entry, sign in ((change.old, -1), (change.new, 1)):
            if entry is not None:
                number = _number_of(entry.event)
                found[number] = found.get(number, NOTHING).plus(sums_of(entry), sign)
    return {_key_of(number): found[number] for number in sorted(found) if found[number] != NOTHING}


def by_tenant(differences: dict[Key, Sums]) -> dict[tuple[UUID, datetime], tuple[int, int]]:
    """Pico-dollars and requests of each tenant and hour; those that cancel out are left out."""
    found: dict[tuple[UUID, datetime], tuple[int, int]] = {}
    for (hour, tenant_id, *_), sums in differences.items():
        cost, requests = found.get((tenant_id, hour), (0, 0))
        found[tenant_id, hour] = (cost + sums.cost, requests + sums.requests)
    return {key: value for key, value in sorted(found.items()) if value != (0, 0)}


def _number_of(event: UsageRecorded) -> Number:
    hour = event.started_at.replace(minute=0, second=0, microsecond=0)
    ids = event.tenant_id.int, event.environment_id.int, event.api_key_id.int
    return (hour, *ids, event.model, event.region)


def _key_of(number: Number) -> Key:
    hour, tenant_id, environment_id, api_key_id, model, region = number
    return (hour, UUID(int=tenant_id), UUID(int=environment_id), UUID(int=api_key_id), model, region)
