"""Usage, plan and credits to what is owed. Pure, and the only place that knows the burn order.

Of each hour's usage, by the hour in which requests began:

1. what reserved capacity covers: `units` tokens a second are 3,600 × units tokens an hour; of an hour with more tokens
   the same share of every cost is covered, and the rest is overage;
2. the free allowance of the calendar month;
3. promotional credits, then paid ones; within a kind the first to expire, then the first granted;
4. the rest is due (pay as you go).

A credit pays for usage from the hour in which it was granted on, up to the hour in which it expires. Nothing depends on
when a record arrived, so that the same records in any order give the same statement. Amounts are pico-dollars.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby, pairwise
from typing import Literal, TypeAlias, TypeVar
from uuid import UUID

import msgspec

from billing.entitlement import HOUR, Terms, hour_after, hour_of, in_force

Kind: TypeAlias = Literal["promotional", "paid"]
Item: TypeAlias = Literal["usage", "commitment", "committed", "free", "promotional", "paid"]
K = TypeVar("K")
LAST = datetime.max.replace(tzinfo=UTC)


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """Usage of one hour; or of several that no boundary separates (`boundaries`), given by the first."""

    hour: datetime
    model: str = ""
    region: str = ""
    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    kind: Kind
    amount: int
    granted_at: datetime
    expires_at: datetime | None = None
    reason: str = ""

    @property
    def first(self) -> datetime:
        """The first hour that it pays for."""
        return hour_of(self.granted_at)

    @property
    def end(self) -> datetime:
        """The first hour that it no longer pays for."""
        return LAST if self.expires_at is None else hour_after(self.expires_at)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """`amount` is negative where something else pays for usage; a month's lines sum to what is due of it."""

    month: str
    """`2026-11`, UTC."""
    item: Item
    model: str = ""
    region: str = ""
    grant_id: UUID | None = None
    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    unit_hours: int = 0
    """Of a commitment: reserved tokens a second times hours."""
    amount: int


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    lines: tuple[Line, ...]
    """By month, item, model, region; credits in the order in which they burn."""
    burned: dict[UUID, int]
    """Of each grant."""
    due: dict[str, int]
    """Of each month."""
    free_left: int
    """Of this month's allowance, by the terms of this hour."""
    credit_left: int
    """Of the grants that pay for this hour."""


def statement(used: Iterable[Used], terms: Sequence[Terms], grants: Iterable[Grant], until: datetime) -> Statement:
    """Of one tenant. `used` is all of its usage since its first grant and in the months of interest, in any order and
    division; `terms` are its timeline; commitments are charged for the hours that have begun before `until`.
    """
    in_order = sorted(grants, key=burn_order)
    rows = _merged(used)
    book = _Book(in_order)
    for hour, of_hour in groupby(rows, key=lambda row: row.hour):
        book.charge(hour, list(of_hour), in_force(terms, hour))
    book.commit(terms, until)
    now, burned = hour_of(until), book.burned
    free = in_force(terms, now).free_monthly - book.free.get(month_of(now), 0)
    live = [grant for grant in in_order if grant.first <= now < grant.end]
    return Statement(
        lines=tuple(book.lines()),
        burned=burned,
        due=book.due(),
        free_left=max(free, 0),
        credit_left=sum(grant.amount - burned.get(grant.id, 0) for grant in live),
    )


def boundaries(terms: Sequence[Terms], grants: Iterable[Grant], first: datetime, until: datetime) -> list[datetime]:
    """Hours from `first` on at which something else begins to pay: usage between two of them may be summed.

    Not where capacity is reserved: that is counted hour by hour (`hourly_from`).
    """
    found = {first, *_months(first, until), *(t.effective_from for t in terms)}
    for grant in grants:
        found |= {grant.first, grant.end}
    return sorted(at for at in found if first <= at <= until)


def hourly_from(terms: Sequence[Terms]) -> datetime:
    """The hour from which on usage must not be summed over hours, since capacity was reserved."""
    return next((t.effective_from for t in terms if t.units), LAST)


def month_of(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m}"


class _Book:
    """Written to hour by hour."""

    def __init__(self, grants: Sequence[Grant]) -> None:
        self._grants = grants
        self._left = [grant.amount for grant in grants]
        self._live = [(at, grant.first, grant.end) for at, grant in enumerate(grants)]
        """Those with something left, by their place: this runs for every hour."""
        self._usage: dict[tuple[str, str, str], Used] = {}
        self._covered: dict[str, int] = {}
        self._fees: dict[str, tuple[int, int]] = {}
        self._burned: dict[tuple[str, int], int] = {}
        self.free: dict[str, int] = {}

    def charge(self, hour: datetime, rows: Sequence[Used], terms: Terms) -> None:
        month = month_of(hour)
        for row in rows:
            key = (month, row.model, row.region)
            self._usage[key] = _plus(self._usage[key], row) if key in self._usage else row
        rest = sum(row.cost for row in rows)
        covered = _share(rest, sum(row.input_tokens + row.output_tokens for row in rows), terms.units * 3600)
        _add(self._covered, month, covered)
        rest -= covered
        free = min(rest, max(terms.free_monthly - self.free.get(month, 0), 0))
        _add(self.free, month, free)
        rest -= free
        used_up = False
        for at, first, end in self._live:
            if not rest:
                break
            if first <= hour < end:
                part = min(rest, self._left[at])
                self._left[at] -= part
                _add(self._burned, (month, at), part)
                rest -= part
                used_up = used_up or not self._left[at]
        if used_up:
            self._live = [live for live in self._live if self._left[live[0]]]

    @property
    def burned(self) -> dict[UUID, int]:
        burned = ((grant, grant.amount - left) for grant, left in zip(self._grants, self._left, strict=True))
        return {grant.id: amount for grant, amount in burned if amount}

    def commit(self, terms: Sequence[Terms], until: datetime) -> None:
        ends = [*(t.effective_from for t in terms[1:]), LAST]
        for term, end in zip(terms, ends, strict=True):
            if not term.units:
                continue
            begin, stop = term.effective_from, min(end, hour_after(until))
            marks = sorted({begin, stop, *(at for at in _months(begin, stop) if begin < at < stop)})
            for since, then in pairwise(marks if begin < stop else []):
                unit_hours = term.units * ((then - since) // HOUR)
                known, fee = self._fees.get(month_of(since), (0, 0))
                self._fees[month_of(since)] = (known + unit_hours, fee + unit_hours * term.unit_hour)

    def lines(self) -> Iterable[Line]:
        months = sorted({month for month, *_ in self._usage} | self._fees.keys())
        for month in months:
            for (of, model, region), row in sorted(self._usage.items()):
                if of == month:
                    yield Line(
                        month=month,
                        item="usage",
                        model=model,
                        region=region,
                        requests=row.requests,
                        input_tokens=row.input_tokens,
                        cached_tokens=row.cached_tokens,
                        output_tokens=row.output_tokens,
                        amount=row.cost,
                    )
            if month in self._fees:
                unit_hours, fee = self._fees[month]
                yield Line(month=month, item="commitment", unit_hours=unit_hours, amount=fee)
            if covered := self._covered.get(month):
                yield Line(month=month, item="committed", amount=-covered)
            if free := self.free.get(month):
                yield Line(month=month, item="free", amount=-free)
            for at, grant in enumerate(self._grants):
                if part := self._burned.get((month, at)):
                    yield Line(month=month, item=grant.kind, grant_id=grant.id, amount=-part)

    def due(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for line in self.lines():
            found[line.month] = found.get(line.month, 0) + line.amount
        return found


def burn_order(grant: Grant) -> tuple[bool, datetime, datetime, UUID]:
    return (grant.kind == "paid", grant.expires_at or LAST, grant.granted_at, grant.id)


def _share(cost: int, tokens: int, capacity: int) -> int:
    """The part of the cost that the capacity covers, rounded down to a pico-dollar."""
    return cost if 0 < tokens <= capacity else cost * capacity // tokens if tokens else 0


def _merged(used: Iterable[Used]) -> list[Used]:
    found: dict[tuple[datetime, str, str], Used] = {}
    for row in used:
        key = (row.hour, row.model, row.region)
        found[key] = _plus(found[key], row) if key in found else row
    # a line that moved elsewhere leaves a row of zeros behind
    return [found[key] for key in sorted(found) if found[key].requests or found[key].cost]


def _plus(one: Used, other: Used) -> Used:
    """With the hour and the names of the first."""
    return Used(
        hour=one.hour,
        model=one.model,
        region=one.region,
        requests=one.requests + other.requests,
        input_tokens=one.input_tokens + other.input_tokens,
        cached_tokens=one.cached_tokens + other.cached_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cost=one.cost + other.cost,
    )


def _months(first: datetime, until: datetime) -> Iterable[datetime]:
    """Beginnings of months after `first`, up to `until`."""
    at = first.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    while (at := at.replace(year=at.year + at.month // 12, month=at.month % 12 + 1)) <= until:
        yield at


def _add(sums: dict[K, int], key: K, amount: int) -> None:
    if amount:
        sums[key] = sums.get(key, 0) + amount
