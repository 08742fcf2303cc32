"""What should agree, side by side: the ledger with Stripe's meter, and with the engines' counters. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

import msgspec

Place: TypeAlias = tuple[datetime, str, str]
"""Hour, node, model."""


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """Of one tenant, all time, in pico-dollars: `ledger` is the sum of the others."""

    tenant_id: UUID
    ledger: int
    unsent: int
    carried: int
    batched: int
    difference: int


class Metered(msgspec.Struct, frozen=True, kw_only=True):
    """An hour of a tenant's meter, in micro-dollars; hours that agree are left out."""

    hour: datetime
    tenant_id: UUID
    delivered: int
    uncertain: int
    """Sent, and not known to have arrived."""
    stripe: int
    difference: int
    """What Stripe has beyond what was delivered, or short of it."""


class Tokens(msgspec.Struct, frozen=True):
    input: int = 0
    output: int = 0

    def plus(self, other: "Tokens") -> "Tokens":
        return Tokens(self.input + other.input, self.output + other.output)


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Of an hour, node and model. Records count in the hour in which they began, engines when they made tokens."""

    hour: datetime
    node_id: str
    model: str
    engine: Tokens
    ledger: Tokens
    aborted: Tokens
    """The part of `ledger` of requests that were cut: engines make a few tokens more than were delivered of those."""
    resets: int
    difference: Tokens
    """What the engine counts beyond the ledger."""


class Charged(msgspec.Struct, frozen=True):
    tokens: Tokens
    aborted: Tokens


class Counted(msgspec.Struct, frozen=True):
    tokens: Tokens
    resets: int


def metered(
    tenant_id: UUID, delivered: Mapping[datetime, tuple[int, int]], stripe: Mapping[datetime, int]
) -> list[Metered]:
    """`delivered` has what arrived for certain and what may have; a difference that it explains is none."""
    found: list[Metered] = []
    for hour in sorted(delivered.keys() | stripe.keys()):
        certain, uncertain = delivered.get(hour, (0, 0))
        told = stripe.get(hour, 0)
        difference = told - certain - min(max(told - certain, 0), uncertain)
        if difference or uncertain:
            found.append(
                Metered(
                    hour=hour,
                    tenant_id=tenant_id,
                    delivered=certain,
                    uncertain=uncertain,
                    stripe=told,
                    difference=difference,
                )
            )
    return found


def works(charged: Mapping[Place, Charged], counted: Mapping[Place, Counted]) -> list[Work]:
    """Every place that either side knows, also where they agree: sums over hours need all of them."""
    found: list[Work] = []
    for place in sorted(charged.keys() | counted.keys()):
        ledger = charged.get(place, Charged(Tokens(), Tokens()))
        engine = counted.get(place, Counted(Tokens(), 0))
        difference = Tokens(engine.tokens.input - ledger.tokens.input, engine.tokens.output - ledger.tokens.output)
        hour, node_id, model = place
        found.append(
            Work(
                hour=hour,
                node_id=node_id,
                model=model,
                engine=engine.tokens,
                ledger=ledger.tokens,
                aborted=ledger.aborted,
                resets=engine.resets,
                difference=difference,
            )
        )
    return found


def leak(found: Sequence[Work]) -> float | None:
    """The share of generated tokens that nobody was charged for; None where engines say nothing. Below zero the ledger
    has more than engines count, as after a reset."""
    made = sum(work.engine.output for work in found)
    return sum(work.difference.output for work in found if work.engine != Tokens()) / made if made else None
