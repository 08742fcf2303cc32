"""Tokens to money. Pure: no clock, no I/O, no floats."""

from bisect import bisect_right
from collections.abc import Iterable
from datetime import datetime
from typing import Literal, TypeAlias
from uuid import UUID

import msgspec

from common.events import UsageRecorded
from common.plans import Plan

ANY_REGION = ""
PlanOrAny: TypeAlias = Plan | Literal[""]
ANY_PLAN: Literal[""] = ""


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a model's price, in force from `effective_from` until the next one of its model, region and plan."""

    id: UUID
    model: str
    region: str = ANY_REGION
    plan: PlanOrAny = ANY_PLAN
    input: int
    """Pico-dollars a token, as are the other two."""
    cached_input: int
    output: int
    effective_from: datetime
    created_at: datetime
    created_by: str


class Book:
    """Versions by model, region and plan, in order of time."""

    def __init__(self, prices: Iterable[Price]) -> None:
        self._versions: dict[tuple[str, str, str], list[Price]] = {}
        for price in sorted(prices, key=_start):
            self._versions.setdefault((price.model, price.region, price.plan), []).append(price)
        self.by_plan = any(price.plan for versions in self._versions.values() for price in versions)
        """Whether it matters which plan a tenant is on."""

    def in_force(self, model: str, region: str, at: datetime, plan: PlanOrAny = ANY_PLAN) -> Price | None:
        """The version that a request of this moment pays: its plan's before any plan's, of these its region's before
        any region's."""
        for of_plan in (plan, ANY_PLAN) if plan else (ANY_PLAN,):
            for of_region in (region, ANY_REGION) if region else (ANY_REGION,):
                if found := self._latest(model, of_region, of_plan, at):
                    return found
        return None

    def _latest(self, model: str, region: str, plan: PlanOrAny, at: datetime) -> Price | None:
        versions = self._versions.get((model, region, plan), ())
        begun = bisect_right(versions, at, key=_start)
        return versions[begun - 1] if begun else None


def _start(price: Price) -> datetime:
    return price.effective_from


def cost(event: UsageRecorded, price: Price) -> int:
    """Pico-dollars. Cached input is a part of the input and pays its own price only."""
    fresh = event.input_tokens - event.cached_tokens
    return fresh * price.input + event.cached_tokens * price.cached_input + event.output_tokens * price.output
