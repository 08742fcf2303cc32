"""Tokens to money. Pure: no clock, no I/O, no floats."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import msgspec

from common.events import UsageRecorded

ANY_REGION = ""


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a model's price, in force from `effective_from` until the next one of its model and region."""

    id: UUID
    model: str
    region: str = ANY_REGION
    input: int
    """Pico-dollars a token, as are the other two."""
    cached_input: int
    output: int
    effective_from: datetime
    created_at: datetime
    created_by: str


def in_force(prices: Iterable[Price], model: str, region: str, at: datetime) -> Price | None:
    """The version that a request of this moment pays: its region's, else the one for any region."""
    known = [p for p in prices if p.model == model and p.region in (region, ANY_REGION) and p.effective_from <= at]
    return max(known, key=lambda p: (p.region == region, p.effective_from), default=None)


def cost(event: UsageRecorded, price: Price) -> int:
    """Pico-dollars. Cached input is a part of the input and pays its own price only."""
    fresh = event.input_tokens - event.cached_tokens
    return fresh * price.input + event.cached_tokens * price.cached_input + event.output_tokens * price.output
