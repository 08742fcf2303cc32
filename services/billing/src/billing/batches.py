"""From what is owed to what a meter is told: whole micro-dollars, at times that Stripe takes. Pure."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

import msgspec

PICO_PER_MICRO = 10**6
OLDEST = timedelta(days=34)
"""Stripe takes what is up to 35 days old; a day is left for trying again."""
INVOICED_AFTER = timedelta(minutes=45)
"""Into a month: Stripe closes the invoice of the last one after an hour, and what comes later would be on none."""
SAFE = timedelta(hours=23)
"""For how long after its first try a batch may be sent again: Stripe knows an identifier for at least 24 hours."""
FIRST_WAIT, LONGEST_WAIT = 0.25, 600.0

_NAMESPACE = UUID("0197d3a6-4c5e-7b1a-9c55-6f1d2a7e0c11")


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    tenant_id: UUID
    hour: datetime
    at: datetime
    micro: int
    identifier: str


class Uncertain(msgspec.Struct, frozen=True):
    """A batch that was sent, or not."""

    id: int
    micro: int


class Settlement(msgspec.Struct, frozen=True):
    counted: dict[int, int]
    """What Stripe has of each."""
    lost: int
    """What it has not: sent anew, in a batch of its own."""


def split(owed: Mapping[datetime, int], carried: int) -> tuple[dict[datetime, int], int]:
    """Pico-dollars by hour, of either sign, to micro-dollars by hour and what is carried on.

    Nothing is lost: `sum(owed) + carried == sum(micro) * 10**6 + rest`. A meter takes no negative value, so that what
    was charged too much is carried until usage outweighs it.
    """
    found: dict[datetime, int] = {}
    for hour in sorted(owed):
        carried += owed[hour]
        if carried >= PICO_PER_MICRO:
            found[hour], carried = divmod(carried, PICO_PER_MICRO)
    return found, carried


def dated(hour: datetime, starts_at: datetime, now: datetime) -> datetime:
    """The time under which usage of an hour is told, so that an invoice has it: as it was where that is possible."""
    month = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    open_from = month if now - month > INVOICED_AFTER else _month_before(month)
    return min(max(hour, starts_at, open_from, now - OLDEST), now)


def identifier(tenant_id: UUID, hour: datetime, last: str, micro: int) -> str:
    """The same for the same content; `last` names the outbox row, or the lost batch, that it ends with."""
    return str(uuid5(_NAMESPACE, f"{tenant_id} {hour.isoformat()} {last} {micro}"))


def settle(sent: Sequence[Uncertain], known: int, told: int) -> Settlement | None:
    """Batches of one customer and hour that may have arrived; `known` is what has for certain, `told` Stripe's sum.

    None when Stripe's sum does not even have what is certain: it is behind, or wrong, and nothing follows from it.
    """
    arrived = told - known
    if arrived < 0:
        return None
    counted: dict[int, int] = {}
    for batch in sent:
        counted[batch.id] = min(batch.micro, arrived)
        arrived -= counted[batch.id]
    return Settlement(counted, sum(batch.micro for batch in sent) - sum(counted.values()))


def wait(tries: int, retry_after: int | None, chance: float) -> timedelta:
    """Until the next try; `chance` from 0 to 1 spreads replicas and batches."""
    seconds = min(FIRST_WAIT * 2.0 ** min(tries, 20), LONGEST_WAIT) * (0.5 + chance / 2)
    return timedelta(seconds=max(seconds, float(retry_after or 0)))


def _month_before(month: datetime) -> datetime:
    return (month - timedelta(days=1)).replace(day=1)
