"""Tokens to money, in integers. Pure: no clock, no I/O, no floats."""

from bisect import bisect_right
from collections.abc import Iterable
from datetime import datetime

import msgspec

from common.events import UsageRecorded


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model's price, in pico-dollars per token, which is micro-dollars per million tokens."""

    id: int
    model: str
    region: str
    """Empty: any region that has no price of its own."""
    input: int
    cached_input: int
    output: int
    effective_from: datetime
    created_at: datetime
    created_by: str


class PriceBook:
    """Versions of prices, of which the one in force when a request began holds for it.

    The answer never changes: versions are only ever added, and none so that it applies to a request that may have
    been priced before (`prices.put`). So every replica, and a replay into an empty ledger, finds the same version.
    """

    def __init__(self, prices: Iterable[Price]) -> None:
        self._versions: dict[tuple[str, str], tuple[list[datetime], list[Price]]] = {}
        for price in sorted(prices, key=lambda price: price.effective_from):
            times, versions = self._versions.setdefault((price.model, price.region), ([], []))
            times.append(price.effective_from)
            versions.append(price)

    def in_force(self, model: str, region: str, at: datetime) -> Price | None:
        """The region's own version, else that for any region."""
        return self._version((model, region), at) or self._version((model, ""), at)

    def _version(self, key: tuple[str, str], at: datetime) -> Price | None:
        found = self._versions.get(key)
        if found is None:
            return None
        times, versions = found
        index = bisect_right(times, at)
        return versions[index - 1] if index else None


def cost(record: UsageRecorded, price: Price) -> int:
    """Pico-dollars. Cached tokens are a part of the input and cost the cached price only."""
    fresh = record.input_tokens - record.cached_tokens
    return fresh * price.input + record.cached_tokens * price.cached_input + record.output_tokens * price.output
