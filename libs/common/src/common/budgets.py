"""What billing tells gateways about money: prices, and what each tenant may spend and has spent.

Both live in JetStream key-value buckets, so that a gateway has the last ones even while billing is down. Amounts are
pico-dollars.
"""

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from common.plans import DEFAULT, Plan

BUDGETS = "BUDGETS"
"""Bucket; a key a tenant, each an `Account`."""
PRICES = "PRICES"
"""Bucket; one key, `PRICE_LIST`."""
PRICE_LIST = "list"
RECORDED = "/internal/recorded"
"""Path of billing's call `Asked` → `Recorded`."""


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """In force from `effective_from` until the next one of its model, region and plan; "" is any."""

    model: str
    region: str = ""
    plan: Plan | Literal[""] = ""
    input: int
    cached_input: int
    output: int
    effective_from: datetime


class PriceList(msgspec.Struct, frozen=True):
    prices: tuple[Price, ...] = ()


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    name: Literal["tenant", "credit"]
    """The tenant's month, or what it has paid in advance or for free."""
    limit: int
    spent: int
    hard: bool
    """Requests are refused that might not fit; otherwise it is only watched."""


class PlanFrom(msgspec.Struct, frozen=True):
    plan: Plan
    effective_from: datetime


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """One snapshot of the ledger. Of two, the one with the higher version includes all that the other includes."""

    tenant_id: UUID
    version: int
    month: str
    """`2026-11`, UTC."""
    budgets: tuple[Budget, ...] = ()
    keys: dict[UUID, int] = {}
    """What each API key has spent this month."""
    plan: Plan = DEFAULT
    later: tuple[PlanFrom, ...] = ()
    """Plans that follow, in order of time."""


class Asked(msgspec.Struct, frozen=True):
    tenant_id: UUID
    ids: tuple[UUID, ...]
    key_budgets: dict[UUID, int] = {}
    """Of API keys that were used: what each may spend in a month, in pico-dollars."""


class Recorded(msgspec.Struct, frozen=True):
    """`account` includes the requests `ids`, and of those asked for no other."""

    account: Account
    ids: tuple[UUID, ...]
