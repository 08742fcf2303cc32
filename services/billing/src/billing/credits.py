"""What is left of what was paid in advance. Pure."""

from collections.abc import Sequence
from datetime import datetime

import msgspec


class Credit(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts are pico-dollars."""

    amount: int
    expires_at: datetime | None
    spent: int
    """By the tenant since its first credit, until this one expires or until now."""


def granted(credits: Sequence[Credit], now: datetime) -> int:
    """The sum of credits, without what was left of those that have expired; the first to expire is spent first."""
    total = used = 0
    last = datetime.max.replace(tzinfo=now.tzinfo)
    for credit in sorted(credits, key=lambda credit: credit.expires_at or last):
        if credit.expires_at is not None and credit.expires_at <= now:
            part = min(credit.amount, max(0, credit.spent - used))
            used += part
            total += part
        else:
            total += credit.amount
    return total
