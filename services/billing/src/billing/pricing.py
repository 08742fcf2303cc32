"""Tokens to money. Pure: no clock, no I/O, no floats."""

from bisect import bisect_right
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


class Book:
    """Versions by model and region, in order of time."""

    def __init__(self, prices: Iterable[Price]) -> None:
        self._versions: dict[tuple[str, str], list[Price]] = {}
        for price in sorted(prices, key=_start):
            self._versions.setdefault((price.model, price.region), []).append(price)

    def in_force(self, model: str, region: str, at: datetime) -> Price | None:
        """The version that a request of this moment pays: its region's, else the one for any region."""
        return self._latest(model, region, at) or (self._latest(model, ANY_REGION, at) if region else None)

    def _latest(self, model: str, region: str, at: datetime) -> Price | None:
        versions = self._versions.get((model, region), ())
        begun = bisect_right(versions, at, key=_start)
        return versions[begun - 1] if begun else None


def _start(price: Price) -> datetime:
    return price.effective_from


def cost(event: UsageRecorded, price: Price) -> int:
    """Pico-dollars. Cached input is a part of the input and pays its own price only."""
    fresh = event.input_tokens - event.cached_tokens
    return fresh * price.input + event.cached_tokens * price.cached_input + event.output_tokens * price.output
