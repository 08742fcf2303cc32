"""Usage and prices as callers see them: exact decimal dollars, absent what was not asked for."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, TypeAlias
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from billing.changes import Entry, Sums, total
from billing.money import usd
from billing.pricing import Book, Price
from common.events import UsageRecorded

By: TypeAlias = Literal["model", "key", "environment", "day", "hour"]


class Total(msgspec.Struct, frozen=True, kw_only=True):
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: str


class Row(Total, frozen=True, kw_only=True):
    model: str | UnsetType = UNSET
    api_key_id: UUID | UnsetType = UNSET
    environment_id: UUID | UnsetType = UNSET
    day: str | UnsetType = UNSET
    """`2026-11-24`, in UTC."""
    hour: datetime | UnsetType = UNSET


class Group(msgspec.Struct, frozen=True):
    """Sums of the rollup; None is what was not grouped by."""

    model: str | None
    api_key_id: UUID | None
    environment_id: UUID | None
    day: datetime | None
    hour: datetime | None
    sums: Sums


class Usage(msgspec.Struct, frozen=True):
    """Rows in order of time, model, environment and key; `total` is their sum."""

    rows: list[Row]
    total: Total


class Record(UsageRecorded, frozen=True, kw_only=True):
    cost_usd: str


class Priced(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    model: str
    region: str
    plan: str
    input_usd_per_million: str
    cached_input_usd_per_million: str
    output_usd_per_million: str
    effective_from: datetime
    created_at: datetime
    created_by: str
    current: bool


def usage(groups: Sequence[Group]) -> Usage:
    return Usage([_row(group) for group in groups], _total(total(group.sums for group in groups)))


def record(entry: Entry) -> Record:
    return Record(**msgspec.structs.asdict(entry.event), cost_usd=usd(entry.cost))


def priced(price: Price, book: Book, now: datetime) -> Priced:
    """`book` has all versions of its model."""
    return Priced(
        id=price.id,
        model=price.model,
        region=price.region,
        plan=price.plan,
        # a pico-dollar a token is a micro-dollar a million tokens
        input_usd_per_million=usd(price.input * 1_000_000),
        cached_input_usd_per_million=usd(price.cached_input * 1_000_000),
        output_usd_per_million=usd(price.output * 1_000_000),
        effective_from=price.effective_from,
        created_at=price.created_at,
        created_by=price.created_by,
        current=book.in_force(price.model, price.region, now, price.plan) == price,
    )


def _row(group: Group) -> Row:
    return Row(
        **msgspec.structs.asdict(_total(group.sums)),
        model=UNSET if group.model is None else group.model,
        api_key_id=group.api_key_id or UNSET,
        environment_id=group.environment_id or UNSET,
        day=f"{group.day:%Y-%m-%d}" if group.day else UNSET,
        hour=group.hour or UNSET,
    )


def _total(sums: Sums) -> Total:
    return Total(
        requests=sums.requests,
        input_tokens=sums.input_tokens,
        cached_tokens=sums.cached_tokens,
        output_tokens=sums.output_tokens,
        cost_usd=usd(sums.cost),
    )
