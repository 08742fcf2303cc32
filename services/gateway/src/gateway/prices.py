"""The gateway's copy of the price book, followed from NATS."""

import asyncio
import logging
from bisect import bisect_right
from datetime import datetime

import msgspec

from common.budgets import PRICE_LIST, PRICES, Price, PriceList
from common.bus import Bus
from common.errors import Unavailable
from common.events import UsageRecorded
from common.plans import DEFAULT, Plan

log = logging.getLogger(__name__)

PICO_PER_MICRO = 1_000_000
MOST = 2**53 - 1


class Prices:
    def __init__(self) -> None:
        self._versions: dict[tuple[str, str, str], list[Price]] = {}

    def replace(self, listed: PriceList) -> None:
        versions: dict[tuple[str, str, str], list[Price]] = {}
        for price in sorted(listed.prices, key=_start):
            versions.setdefault((price.model, price.region, price.plan), []).append(price)
        self._versions = versions

    def in_force(self, model: str, region: str, at: datetime, plan: Plan = DEFAULT) -> Price | None:
        """What billing will charge a request of this moment by: its plan's price, else the one for any plan; of these
        its region's, else the one for any region."""
        for of_plan in (plan, ""):
            for of_region in (region, "") if region else ("",):
                if found := self._latest(model, of_region, of_plan, at):
                    return found
        return None

    async def follow(self, bus: Bus) -> None:
        while True:
            try:
                async for value in bus.follow(PRICES, PRICE_LIST):
                    self.replace(msgspec.json.decode(value, type=PriceList))
            except (Unavailable, msgspec.MsgspecError) as error:
                log.warning("prices are not followed: %s", error)
            await asyncio.sleep(1)

    def _latest(self, model: str, region: str, plan: str, at: datetime) -> Price | None:
        versions = self._versions.get((model, region, plan), ())
        begun = bisect_right(versions, at, key=_start)
        return versions[begun - 1] if begun else None


def _start(price: Price) -> datetime:
    return price.effective_from


def cost(price: Price, record: UsageRecorded) -> int:
    """Pico-dollars."""
    fresh = record.input_tokens - record.cached_tokens
    return fresh * price.input + record.cached_tokens * price.cached_input + record.output_tokens * price.output


def rounded_up(pico: int) -> int:
    """Micro-dollars, no more than Redis counts exactly."""
    return min(-(-pico // PICO_PER_MICRO), MOST)


def rounded_down(pico: int) -> int:
    """As `rounded_up`, for limits."""
    return min(pico // PICO_PER_MICRO, MOST)
