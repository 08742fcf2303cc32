"""What a tenant owes for a month: usage summed by price, line by line. Pure: the moment is an argument.

Every amount is exact to the pico-dollar but the last: what is due is their sum, rounded once, half up, to a cent.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal, TypeAlias
from uuid import UUID

import msgspec

from billing.changes import Sums
from billing.money import usd
from billing.pricing import Price

Kind: TypeAlias = Literal["input", "cached_input", "output"]
Status: TypeAlias = Literal["open", "provisional", "final"]
GRACE = timedelta(days=3)
"""How long after its end a month waits for records that were delayed."""
CENT = 10**10


class Part(msgspec.Struct, frozen=True):
    """A month's usage of one model in one region at one price."""

    model: str
    region: str
    price_id: UUID
    sums: Sums


class Line(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    region: str
    kind: Kind
    requests: int
    """In which such tokens came; the same request counts on several lines."""
    tokens: int
    usd_per_million: str
    amount_usd: str


class Adjustment(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan or a credit adds or, negative, takes off."""

    description: str
    amount: int
    """Pico-dollars."""


class AdjustmentLine(msgspec.Struct, frozen=True, kw_only=True):
    description: str
    amount_usd: str


class Invoice(msgspec.Struct, frozen=True, kw_only=True):
    number: str
    tenant_id: UUID
    month: str
    """`2026-11`, in UTC: of the moment at which a request began."""
    status: Status
    currency: Literal["usd"] = "usd"
    requests: int
    lines: tuple[Line, ...]
    usage_usd: str
    """The sum of the lines, and the ledger's."""
    adjustments: tuple[AdjustmentLine, ...]
    due_usd: str


def invoice(
    tenant_id: UUID,
    month: datetime,
    parts: Iterable[Part],
    prices: Mapping[UUID, Price],
    adjustments: Sequence[Adjustment] = (),
    *,
    now: datetime,
) -> Invoice:
    """`parts` in any order, `prices` has those that they name. Raises ValueError where a part does not cost what its
    price says."""
    ordered = sorted(parts, key=lambda part: (part.model, part.region, prices[part.price_id].effective_from))
    ordered = [part for part in ordered if part.sums.requests]
    counted = [(line, pico) for part in ordered for line, pico in _lines(part, prices[part.price_id])]
    usage = sum(pico for _, pico in counted)
    return Invoice(
        number=f"{month:%Y-%m}-{tenant_id.hex[-12:]}",
        tenant_id=tenant_id,
        month=f"{month:%Y-%m}",
        status=status(month, now),
        requests=sum(part.sums.requests for part in ordered),
        lines=tuple(line for line, _ in counted),
        usage_usd=usd(usage),
        adjustments=tuple(
            AdjustmentLine(description=one.description, amount_usd=usd(one.amount)) for one in adjustments
        ),
        due_usd=usd(_to_cents(usage + sum(one.amount for one in adjustments))),
    )


def status(month: datetime, now: datetime) -> Status:
    ends = following(month)
    if now < ends:
        return "open"
    return "provisional" if now < ends + GRACE else "final"


def following(month: datetime) -> datetime:
    """The first moment of the month after."""
    return (month.replace(day=1) + timedelta(days=32)).replace(day=1)


def _lines(part: Part, price: Price) -> list[tuple[Line, int]]:
    sums = part.sums
    kinds: tuple[tuple[Kind, int, int], ...] = (
        ("input", sums.input_tokens - sums.cached_tokens, price.input),
        ("cached_input", sums.cached_tokens, price.cached_input),
        ("output", sums.output_tokens, price.output),
    )
    if sum(tokens * each for _, tokens, each in kinds) != sums.cost:
        raise ValueError(f"{part.model}: {sums.cost} pico-dollars are not what price {price.id} makes")
    return [
        (
            Line(
                model=part.model,
                region=part.region,
                kind=kind,
                requests=sums.requests,
                tokens=tokens,
                usd_per_million=usd(each * 1_000_000),
                amount_usd=usd(tokens * each),
            ),
            tokens * each,
        )
        for kind, tokens, each in kinds
        if tokens
    ]


def _to_cents(pico: int) -> int:
    """Half away from zero."""
    whole = (2 * abs(pico) + CENT) // (2 * CENT) * CENT
    return -whole if pico < 0 else whole
